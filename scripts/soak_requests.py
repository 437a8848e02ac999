"""Whole requests through an engine on a tiny random vision model, for as long as asked.

Of the requests 30% are aborted at a random step and 10% are bad; every picture is unique. Counted
are what is left over at the end (blocks, pins, requests), violated invariants, outputs that differ
from the same request alone, and how the resident memory grows. Anything but zero ends it with 1.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "python"))

import numpy as np
import tiny_models
import torch
from PIL import Image

from mmcore import LLM, SamplingParams
from mmcore.errors import MmcoreError

LIVE = 16  # requests at a time
CHECK_EVERY = 250  # requests between two looks at invariants and memory
ABORTED = 0.3
BAD = 0.1
REMEMBERED_EVERY = 5  # finished requests between two that run again alone
MAX_REMEMBERED = 200  # reached within the first requests: what is kept here grows the memory, too


def resident_kib() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


class _MallInfo2(ctypes.Structure):
    """What glibc's mallinfo2 gives."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    )  # fmt: skip


def heap_in_use_kib() -> int:
    """What malloc has given out and not got back; 0 where the C library does not say.

    Unlike the resident memory it does not count what malloc keeps for later in its arenas.
    """
    mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo2 is None:
        return 0
    mallinfo2.restype = _MallInfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd) // 1024


def picture(seed: int) -> Image.Image:
    """A picture that no other seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


class Soak:
    """One engine, the requests in it, and what was counted.

    Parameters
    ----------
    llm
        The engine.
    seed
        Of everything that is drawn.
    """

    def __init__(self, llm: LLM, seed: int) -> None:
        self.engine = llm.llm_engine
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.memory: list[tuple[int, int, int]] = []  # requests so far, KiB resident, in use
        self._live: dict[str, dict[str, Any]] = {}
        self._abort_at: dict[str, int] = {}
        self._remembered: list[tuple[dict[str, Any], list[int]]] = []
        self._bad: set[str] = set()  # accepted, and to end with an error
        self._step = 0

    def _good_prompt(self, number: int) -> Any:
        text = "shared beginning " * self.random.randint(0, 3) + f"{self.random.randint(0, 9)}?"
        if self.random.random() < 0.6:
            return {
                "prompt": f"{text}<image>what?",
                "multi_modal_data": {"image": picture(number)},
            }
        return {"prompt": text}

    def _bad_prompt(self, number: int) -> Any:
        image = picture(number)
        choices: tuple[Any, ...] = (
            {"prompt": ""},
            {"prompt": "<image>two?", "multi_modal_data": {"image": [image, image]}},
            {"prompt": "none<image>"},
            {"prompt": "<image>x", "multi_modal_data": {"image": b"\x89PNG\r\n\x1a\nbroken"}},
            {"prompt": "<image>x", "multi_modal_data": {"image": "no picture"}},
            {"prompt": "long " * tiny_models.MAX_LEN},
            {"prompt_token_ids": [10**9]},
            {"prompt_token_ids": [-1]},
            17,
        )
        return choices[number % len(choices)]

    def _params(self) -> SamplingParams:
        return SamplingParams(
            temperature=0.0, max_tokens=self.random.randint(1, 48), ignore_eos=True
        )

    def submit(self, number: int) -> None:
        """Add one request; a bad one must be refused, at once or as its output."""
        name = str(number)
        self.counts["requests"] += 1
        if self.random.random() < BAD:
            self.counts["bad"] += 1
            try:
                self.engine.add_request(name, self._bad_prompt(number), self._params())
            except (MmcoreError, TypeError):
                self.counts["refused"] += 1
            else:
                self._bad.add(name)
            return
        prompt = self._good_prompt(number)
        params = self._params()
        self.engine.add_request(name, prompt, params)
        self._live[name] = {"prompt": prompt, "params": params}
        if self.random.random() < ABORTED / (1 - BAD):
            self._abort_at[name] = self._step + self.random.randint(0, 6)

    def step(self) -> None:
        """Abort those whose time has come, run a step and hear its outputs."""
        self._step += 1
        for name in [n for n, at in self._abort_at.items() if at <= self._step]:
            del self._abort_at[name]
            if self._live.pop(name, None) is not None:
                self.engine.abort_request(name)
                self.counts["aborted"] += 1
        for output in self.engine.step():
            if output.finished and output.request_id in self._bad:
                self._bad.discard(output.request_id)
                self.counts["refused"] += 1
                if output.error is None:
                    self.problems.append(f"request {output.request_id}: a bad input was served")
            if not output.finished or output.request_id not in self._live:
                continue
            request = self._live.pop(output.request_id)
            self._abort_at.pop(output.request_id, None)
            if output.error is not None:
                self.problems.append(f"request {output.request_id} failed: {output.error}")
                continue
            self.counts["finished"] += 1
            if (
                self.counts["finished"] % REMEMBERED_EVERY == 0
                and len(self._remembered) < MAX_REMEMBERED
            ):
                self._remembered.append((request, list(output.outputs[0].token_ids)))

    def run(self, requests: int, seconds: float) -> None:
        """Submit up to `requests`, none after `seconds`, and run all to their end."""
        end = time.monotonic() + seconds
        number = 0
        while number < requests and time.monotonic() < end:
            while len(self._live) < LIVE and number < requests:
                number += 1
                self.submit(number)
                if number % CHECK_EVERY == 0:
                    self.problems.extend(self.engine.check_invariants())
                    self._note_memory(number)
            self.step()
        while self.engine.has_unfinished_requests():
            self.step()

    def _note_memory(self, number: int) -> None:
        # What is kept here to run again counts, too: the slope begins when all of it is there.
        if len(self._remembered) < MAX_REMEMBERED:
            self.memory.clear()
        gc.collect()
        self.memory.append((number, resident_kib(), heap_in_use_kib()))

    def leaks(self) -> dict[str, int]:
        """What is still held when nothing runs."""
        self.problems.extend(self.engine.check_invariants())
        metrics = self.engine.metrics()
        names = ("num_waiting", "num_running", "blocks_used", "encoder_entries_pinned")
        left = {name: metrics[name] for name in names}
        left["runner_requests"] = self.engine.model_runner.num_requests
        left["requests_never_ended"] = len(self._live) + len(self._bad)
        self.engine.reset_caches()
        metrics = self.engine.metrics()
        left["blocks_cached"] = metrics["blocks_cached"]
        left["encoder_entries"] = metrics["encoder_entries"]
        return left

    def run_alone(self) -> None:
        """Run remembered requests again, one at a time and without what others cached."""
        for number, (request, tokens) in enumerate(self._remembered):
            self.engine.reset_caches()
            self.engine.add_request(f"alone {number}", request["prompt"], request["params"])
            alone: list[int] = []
            while self.engine.has_unfinished_requests():
                for output in self.engine.step():
                    if output.finished:
                        alone = list(output.outputs[0].token_ids)
            self.counts["run_again_alone"] += 1
            if alone != tokens:
                self.problems.append(f"{request['prompt']}: {tokens} in a crowd, {alone} alone")

    def memory_slopes(self) -> tuple[float, float]:
        """KiB for every 1,000 requests by least squares: resident, and in use."""
        settled = self.memory[len(self.memory) // 5 :]
        if len(settled) < 3:
            return 0.0, 0.0
        x, resident, in_use = np.array(settled, dtype=np.float64).T
        slopes = [float(np.polyfit(x, y, 1)[0]) * 1000 for y in (resident, in_use)]
        return slopes[0], slopes[1]


def main() -> int:
    """Run it; the result is JSON on standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_models.make_llava(Path(folder))
        # A pool that the live requests outgrow: some are preempted.
        llm = LLM(
            str(path),
            dtype="float32",
            max_model_len=128,
            num_gpu_blocks_override=24,
            headroom=0,
            # Caches that are full soon: what grows after that is a leak.
            mm_input_cache_bytes=1 << 20,
            encoder_cache_rows=512,
            seed=0,
        )
        soak = Soak(llm, arguments.seed)
        start = time.monotonic()
        soak.run(arguments.requests, arguments.seconds)
        seconds = time.monotonic() - start
        preemptions = llm.llm_engine.metrics()["preemptions"]
        leaks = soak.leaks()
        soak.run_alone()
    resident, in_use = soak.memory_slopes()
    failed = bool(soak.problems) or any(leaks.values())
    result = {
        "seed": arguments.seed,
        "seconds": round(seconds, 1),
        **soak.counts,
        "preemptions": preemptions,
        "leaks": leaks,
        "problems": soak.problems[:20],
        "memory_first_kib": soak.memory[0][1] if soak.memory else None,
        "memory_last_kib": soak.memory[-1][1] if soak.memory else None,
        "resident_slope_kib_per_1000_requests": round(resident, 1),
        "heap_in_use_slope_kib_per_1000_requests": round(in_use, 1),
    }
    print(json.dumps(result, indent=2))
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
