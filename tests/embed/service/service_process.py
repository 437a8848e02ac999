"""The example service as a child process, and what a client needs to talk to it."""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[3]
CHECKPOINT = ROOT / "python" / "mmcore" / "assets" / "tiny_llava"
PICTURE = ROOT / "python" / "mmcore" / "assets" / "shapes.png"
QUESTIONS = (
    "Describe the image.",
    "How many circles are there?",
    "How many squares are there?",
    "What is on the left?",
    "What color is the background?",
)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer: its status and its JSON, or its events."""

    status: int
    body: Any
    events: tuple[Any, ...] = ()

    @property
    def text(self) -> str:
        """The generated text, joined from events where it came in events."""
        parts = self.events or (self.body,)
        return "".join(part["choices"][0]["text"] for part in parts)

    @property
    def token_ids(self) -> list[int]:
        """The generated tokens."""
        parts = self.events or (self.body,)
        return [token for part in parts for token in part["choices"][0]["token_ids"]]


class Service:
    """A running mmcore_service; leaving the context ends it if it still runs."""

    def __init__(self, program: Path, *options: str, model: Path = CHECKPOINT) -> None:
        self.process = subprocess.Popen(
            [program, "--model", model, "--port", "0", *options], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)\n", line)
        if not found:
            raise RuntimeError(f"the service did not start: {line!r}")
        self.port = int(found[1])

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @contextmanager
    def connection(self, timeout: float = 120) -> Iterator[http.client.HTTPConnection]:
        """Open a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            yield connection
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, str]:
        """Ask with GET; give the status and the body."""
        with self.connection() as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def post(self, body: object, path: str = "/v1/completions") -> Reply:
        """Ask with POST, bytes as they are and all else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self.connection() as connection:
            connection.request("POST", path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
            kind = response.getheader("Content-Type", "")
        if not kind.startswith("text/event-stream"):
            return Reply(response.status, json.loads(text))
        lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
        if lines[-1] != "[DONE]":
            raise RuntimeError(f"a stream that does not end: {text[-200:]!r}")
        return Reply(response.status, None, tuple(json.loads(line) for line in lines[:-1]))

    def metrics(self) -> dict[str, float]:
        """Read /metrics."""
        status, text = self.get("/metrics")
        if status != 200:
            raise RuntimeError(f"/metrics gave {status}")
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name.removeprefix("mmcore_"): float(value) for name, value in pairs}

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def terminate(self) -> tuple[int, str]:
        """Send SIGTERM; give the exit status and what it still printed."""
        self.process.send_signal(signal.SIGTERM)
        rest, _ = self.process.communicate(timeout=60)
        return self.process.returncode, rest


def draw(index: int, kind: str = "PNG", size: int = 112) -> bytes:
    """Make a picture file of one shape; every index gives another one."""
    colours = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown")
    picture = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(picture)
    colour = colours[index % 9]
    x, y = 10 + index * 7 % 50, 10 + index * 11 % 50
    box = (x, y, x + 30 + index % 13, y + 30 + index % 13)
    if index % 2:
        pen.ellipse(box, fill=colour)
    else:
        pen.rectangle(box, fill=colour)
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def encoded(picture: bytes) -> str:
    """Give a picture's file as it is sent."""
    return base64.b64encode(picture).decode()


def question(text: str, *pictures: bytes, **fields: Any) -> dict[str, Any]:
    """Make the body of a request for a greedy answer."""
    places = "<image>\n" * len(pictures)
    return {
        "prompt": f"USER: {places}{text} ASSISTANT:",
        "images": [encoded(picture) for picture in pictures],
        "max_tokens": 40,
        "temperature": 0,
        **fields,
    }
