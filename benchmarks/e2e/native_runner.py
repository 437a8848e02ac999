"""A LLaVA in a C++ program with the native runner, beside a Python process with LLM.

    python -m benchmarks.e2e.native_runner PROGRAM [--device cuda] [--dtype bfloat16]
        [--shape bundled|1b|7b] [--no-python] [--rounds 5] [--new-tokens 32] [--json FILE]

PROGRAM is mmcore_bench_native_runner of a release build. Both are processes of their own that get
the same pictures, no two alike, and take turns; in float32 their tokens are compared first. The
time to the first token begins before the process is started; resident memory is the process's
highest. `--shape` 1b and 7b write a checkpoint with random weights, of LLaVA-1.5 with a Llama of
that size, to --folder.
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

from benchmarks.e2e.llava_requests import ONE_B, SEVEN_B
from benchmarks.e2e.random_weights import write_random_checkpoint
from benchmarks.harness import machine_facts, print_table, use_threads, warn_if_busy, write_results
from mmcore.entrypoints.cli.bundled import MODEL

PROMPT = "USER: <image>\nDescribe the image. ASSISTANT:"
BATCHES = (1, 32)
SHAPES = {"1b": ONE_B, "7b": SEVEN_B}


@dataclass(frozen=True, slots=True)
class Row:
    """One process: medians over the rounds."""

    process: str
    start_to_first_token_s: float
    resident_mib: float
    first_token_ms_1: float
    step_ms_1: float
    tokens_per_s_1: float
    step_ms_32: float
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
        self.seconds: dict[tuple[int, int], list[float]] = {}

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
        self.seconds.setdefault((batch, tokens), []).append(time.perf_counter() - start)

    def median(self, batch: int, tokens: int) -> float:
        """Give the median of the rounds in seconds."""
        return statistics.median(self.seconds[batch, tokens])

    def close(self) -> float:
        """End it and give its highest resident memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        return int(line.split()[1]) / 1024


def picture_side(checkpoint: Path) -> int:
    """Give the side of the pictures that a checkpoint's model takes."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return int(config["vision_config"]["image_size"])


def serve(pictures: Path, checkpoint: Path, device: str, dtype: str) -> None:
    """Be the Python process."""
    from PIL import Image

    from mmcore import LLM, SamplingParams

    side = picture_side(checkpoint)
    with_text = (checkpoint / "tokenizer.json").is_file()
    llm = LLM(str(checkpoint), device=device, dtype=dtype, skip_tokenizer_init=not with_text)
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    prompt: dict[str, Any] = {"prompt": PROMPT}
    if not with_text:  # as the program does
        ids = [100 + i * 97 % 400 for i in range(65)]
        ids[4] = config["image_token_index"]
        prompt = {"prompt_token_ids": ids}
    with pictures.open("rb") as file:
        for line in sys.stdin:
            count, tokens = map(int, line.split())
            requests: list[Any] = []
            for _ in range(count):
                pixels = np.frombuffer(file.read(3 * side * side), dtype=np.uint8)
                picture = Image.fromarray(pixels.reshape(side, side, 3))
                requests.append({**prompt, "multi_modal_data": {"image": picture}})
            params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
            outputs = llm.generate(requests, params, use_tqdm=False)
            print(json.dumps([list(o.outputs[0].token_ids) for o in outputs]), flush=True)


def row_of(name: str, process: Served, new_tokens: int) -> Row:
    """Reduce a process's rounds, and end it."""

    def step_ms(batch: int) -> float:
        seconds = process.median(batch, new_tokens) - process.median(batch, 1)
        return 1e3 * seconds / (new_tokens - 1)

    return Row(
        process=name,
        start_to_first_token_s=process.first_token_s,
        first_token_ms_1=1e3 * process.median(1, 1),
        step_ms_1=step_ms(1),
        tokens_per_s_1=new_tokens / process.median(1, new_tokens),
        step_ms_32=step_ms(32),
        tokens_per_s_32=32 * new_tokens / process.median(32, new_tokens),
        resident_mib=process.close(),
    )


def measure(options: argparse.Namespace, checkpoint: Path) -> list[Row]:
    """Start the processes, compare their tokens and time them in turns."""
    side = picture_side(checkpoint)
    with tempfile.NamedTemporaryFile() as pictures:
        count = 1 + 8 + (2 * options.rounds + 1) * sum(BATCHES)
        random = np.random.default_rng(0)
        pictures.write(random.integers(0, 256, (count, side, side, 3), dtype=np.uint8).tobytes())
        pictures.flush()
        where = [options.device, options.dtype]
        served = {
            "C++, native runner": Served([options.program, str(checkpoint), pictures.name, *where])
        }
        if options.python:
            served["Python, LLM"] = Served(
                [
                    *(sys.executable, "-m", "benchmarks.e2e.native_runner", pictures.name),
                    *("--serve", "--checkpoint", str(checkpoint)),
                    *("--device", options.device, "--dtype", options.dtype),
                ]
            )
        given = [process.generate(8, options.new_tokens) for process in served.values()]
        if options.dtype == "float32" and given[0] != given[-1]:
            raise SystemExit("float32 generations differ: not measured")
        for batch in BATCHES:
            for process in served.values():
                process.generate(batch, 4)  # warm-up
            for _ in range(options.rounds):
                for process in served.values():
                    process.measure(batch, 1)
                    process.measure(batch, options.new_tokens)
        return [row_of(name, process, options.new_tokens) for name, process in served.items()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--shape", default="bundled", choices=["bundled", *SHAPES])
    parser.add_argument("--folder", type=Path, help="of a random checkpoint; else a temporary one")
    parser.add_argument("--no-python", dest="python", action="store_false")
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="store the rows here")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, default=MODEL, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.program), options.checkpoint, options.device, options.dtype)
        return

    facts = machine_facts(use_threads(None))
    warn_if_busy(facts)
    if options.shape == "bundled":
        rows = measure(options, options.checkpoint)
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            write_random_checkpoint(SHAPES[options.shape], Path(folder))
            rows = measure(options, Path(folder))
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"{options.shape}, {options.dtype} on {options.device}, {options.new_tokens} tokens")
    print_table(
        [
            "process",
            "start to first token",
            "resident",
            "first token",
            "step, 1",
            "tokens/s, 1",
            "step, 32",
            "tokens/s, 32",
        ],
        [
            [
                row.process,
                f"{row.start_to_first_token_s:.3f} s",
                f"{row.resident_mib:.0f} MiB",
                f"{row.first_token_ms_1:.1f} ms",
                f"{row.step_ms_1:.3f} ms",
                f"{row.tokens_per_s_1:.0f}",
                f"{row.step_ms_32:.3f} ms",
                f"{row.tokens_per_s_32:.0f}",
            ]
            for row in rows
        ],
    )
    if options.json is not None:
        write_results(options.json, facts, rows)


if __name__ == "__main__":
    main()
