"""The bundled LLaVA-1.5 in a C++ program with the native runner, beside a Python process with LLM.

    python -m benchmarks.e2e.native_runner PROGRAM [--rounds 5] [--new-tokens 32] [--json FILE]

PROGRAM is mmcore_bench_native_runner of a release build. Both are processes of their own that get
the same pictures, no two alike, and take turns; their tokens are compared first. The time to the
first token begins before the process is started; resident memory is the process's highest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import machine_facts, print_table, use_threads, warn_if_busy, write_results
from mmcore.entrypoints.cli.bundled import MODEL

PROMPT = "USER: <image>\nDescribe the image. ASSISTANT:"
SIDE = 112
BATCHES = (1, 32)


@dataclass(frozen=True, slots=True)
class Row:
    """One process: medians over the rounds."""

    process: str
    first_token_s: float
    resident_mib: float
    tokens_per_s_1: float
    tokens_per_s_32: float


class Served:
    """A process that reads "<requests> <tokens>" and answers with a line of JSON."""

    def __init__(self, command: Sequence[str]) -> None:
        start = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.generate(1, 1)
        self.first_token_s = time.perf_counter() - start
        self.seconds: dict[int, list[float]] = {batch: [] for batch in BATCHES}

    def generate(self, requests: int, tokens: int) -> list[list[int]]:
        """Let it run requests and give their tokens."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{requests} {tokens}\n")
        self.process.stdin.flush()
        answer: list[list[int]] = json.loads(self.process.stdout.readline())
        return answer

    def measure(self, batch: int, tokens: int) -> None:
        """Time one round."""
        start = time.perf_counter()
        self.generate(batch, tokens)
        self.seconds[batch].append(time.perf_counter() - start)

    def close(self) -> float:
        """End it and give its highest resident memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        return int(line.split()[1]) / 1024


def serve(pictures: Path) -> None:
    """Be the Python process."""
    from PIL import Image

    from mmcore import LLM, SamplingParams

    llm = LLM(str(MODEL), dtype="float32")
    with pictures.open("rb") as file:
        for line in sys.stdin:
            count, tokens = map(int, line.split())
            requests: list[Any] = []
            for _ in range(count):
                pixels = np.frombuffer(file.read(3 * SIDE * SIDE), dtype=np.uint8)
                picture = Image.fromarray(pixels.reshape(SIDE, SIDE, 3))
                requests.append({"prompt": PROMPT, "multi_modal_data": {"image": picture}})
            params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
            outputs = llm.generate(requests, params, use_tqdm=False)
            print(json.dumps([list(o.outputs[0].token_ids) for o in outputs]), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="store the rows here")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.program))
        return

    facts = machine_facts(use_threads(None))
    warn_if_busy(facts)
    with tempfile.NamedTemporaryFile() as pictures:
        count = 1 + 8 + (options.rounds + 1) * sum(BATCHES)
        random = np.random.default_rng(0)
        pictures.write(random.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8).tobytes())
        pictures.flush()
        python = [sys.executable, "-m", "benchmarks.e2e.native_runner", pictures.name, "--serve"]
        served = {
            "C++, native runner": Served([options.program, str(MODEL), pictures.name]),
            "Python, LLM": Served(python),
        }
        given = [process.generate(8, options.new_tokens) for process in served.values()]
        if given[0] != given[1]:
            raise SystemExit("float32 generations differ: not measured")
        for batch in BATCHES:
            for process in served.values():
                process.generate(batch, 4)  # warm-up
            for _ in range(options.rounds):
                for process in served.values():
                    process.measure(batch, options.new_tokens)
    rows = []
    for name, process in served.items():
        rates = [
            batch * options.new_tokens / statistics.median(process.seconds[batch])
            for batch in BATCHES
        ]
        rows.append(Row(name, process.first_token_s, process.close(), *rates))
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print_table(
        ["process", "first token", "resident", "tokens/s, 1 request", "tokens/s, 32 requests"],
        [
            [
                row.process,
                f"{row.first_token_s:.3f} s",
                f"{row.resident_mib:.0f} MiB",
                f"{row.tokens_per_s_1:.0f}",
                f"{row.tokens_per_s_32:.0f}",
            ]
            for row in rows
        ],
    )
    if options.json is not None:
        write_results(options.json, facts, rows)


if __name__ == "__main__":
    main()
