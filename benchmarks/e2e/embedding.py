"""What a service costs at its start: the C++ example service beside a Python process.

Usage: python -m benchmarks.e2e.embedding PROGRAM [--runs 5]

Measures, from the start of the process to the first token of an answer about the bundled picture:
time, and then resident memory. The Python process runs LLM on the same checkpoint.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "embed" / "service"))

from service_process import PICTURE, Service, question  # noqa: E402

PYTHON = """
import sys
from importlib.resources import files
from PIL import Image
from mmcore import LLM, SamplingParams
assets = files("mmcore") / "assets"
llm = LLM(str(assets / "tiny_llava"))
prompt = {"prompt": "USER: <image>\\nDescribe the image. ASSISTANT:",
          "multi_modal_data": {"image": Image.open(str(assets / "shapes.png"))}}
llm.generate([prompt], SamplingParams(temperature=0, max_tokens=1), use_tqdm=False)
print("token", flush=True)
sys.stdin.read()
"""


def resident(pid: int) -> float:
    """Resident memory in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith("VmRSS")]
    return int(kilobytes) / 1024


def measure_service(program: Path) -> tuple[float, float, float]:
    """Give seconds until it listens, seconds until the first token, and memory."""
    begin = time.monotonic()
    with Service(program) as service:
        listening = time.monotonic() - begin
        service.post(question("Describe the image.", PICTURE.read_bytes(), max_tokens=1))
        return listening, time.monotonic() - begin, resident(service.process.pid)


def measure_python() -> tuple[float, float]:
    """Give seconds until the first token, and memory."""
    begin = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", PYTHON],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        if process.stdout.readline() != "token\n":
            raise RuntimeError("the Python process gave no token")
        seconds, memory = time.monotonic() - begin, resident(process.pid)
        process.stdin.close()
    return seconds, memory


def closure(program: Path) -> dict[str, int]:
    """Give the program and what it links, with their sizes in bytes."""
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    paths = [Path(line.split("=> ")[1].split()[0]) for line in listed.splitlines() if "=> " in line]
    return {path.name: path.resolve().stat().st_size for path in [program, *paths]}


def main() -> None:
    """Print medians as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    program = arguments.program.resolve()
    services = [measure_service(program) for _ in range(arguments.runs)]
    pythons = [measure_python() for _ in range(arguments.runs)]
    names = ("service_listens_s", "service_first_token_s", "service_resident_mb")
    result: dict[str, object] = {
        name: round(statistics.median(values), 3)
        for name, values in zip(names, zip(*services, strict=True), strict=True)
    }
    for name, values in zip(
        ("python_first_token_s", "python_resident_mb"), zip(*pythons, strict=True), strict=True
    ):
        result[name] = round(statistics.median(values), 3)
    result["links"] = closure(program)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
