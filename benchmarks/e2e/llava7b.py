"""LLaVA-1.5-7B on a GPU, against Hugging Face transformers in the same run: random weights.

    python -m benchmarks.e2e.llava7b [--batch 1 --batch 32] [--new-tokens 128] [--json FILE]
        [--one-by-one] [--eager] [--whole-lives] [--no-rival] [--timeline] [--requests 256]
        [--arrivals 8] [--one-stream] [--no-headroom] [--fp8-cache] [--picture 1024x768]
    python -m benchmarks.e2e.llava7b --tiny --device cpu ...

The shape is LLaVA-1.5-7B's: CLIP ViT-L/14 at 336 pixels and a Llama of 32 layers, in bfloat16. No
weights are read: both sides draw them at random, so that tokens mean nothing and speed does. Every
request is a picture of its own, 576 rows, and 65 tokens of text; end-of-text is ignored. Pictures
are prepared inside the measured time on both sides. The rival is `generate` with SDPA and a static
batch of one length.

`--one-by-one`, `--eager`, `--whole-lives`, `--no-headroom`, `--one-stream` and `--fp8-cache`
measure mmcore once more: with each step launched when the one before it has ended; without CUDA
graphs; with requests that begin only when there is room for all of their tokens
(`max_preemptions=0`), or when there is a block for each that runs (`headroom=0`); with the tower
on the decoder's stream, in front of it; and with keys and values of 8 bits. `--arrivals` lets so
many run while others come.
`--timeline` adds tables of where the time of a first token and of a decode step goes, `--requests`
the requests a second when so many are given at once. `--tiny` tries the program out.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.e2e.arrivals import measure_arrivals
from benchmarks.e2e.llava_requests import (
    SEVEN_B,
    TEXT_TOKENS,
    TINY,
    Request,
    Requests,
    Shape,
    write_checkpoint,
)
from benchmarks.e2e.timeline import Timeline, busiest_kernels, print_parts
from benchmarks.harness import cpu_name, print_table


@dataclass(frozen=True, slots=True)
class Row:
    """One engine at one batch size: medians over the rounds."""

    engine: str
    batch: int
    prompt_tokens: int
    new_tokens: int
    first_token_ms: float
    token_ms: float
    low_token_ms: float
    high_token_ms: float
    total_ms: float
    output_tokens_per_s: float
    start_s: float


Generate = Callable[[list[Request], int], list[list[int]]]

# Other ways to run mmcore, each an option of the command line and what the engine is given for it.
VARIANTS: dict[str, dict[str, Any]] = {
    "one-by-one": {"async_scheduling": False},
    "whole-lives": {"max_preemptions": 0},
    "no-headroom": {"headroom": 0},
    "one-stream": {"encoder_stream": False},
    "fp8-cache": {"kv_cache_dtype": "fp8"},
    "eager": {"enforce_eager": True},
}


class MmcoreEngine:
    """Serves with mmcore."""

    def __init__(
        self, folder: Path, shape: Shape, device: str, *, batch: int, **options: Any
    ) -> None:
        from mmcore import LLM

        self._image_token = shape.image_token
        self.llm = LLM(
            str(folder),
            skip_tokenizer_init=True,
            load_format="dummy",
            device=device,
            max_num_seqs=max(batch, 256),
            limit_mm_per_prompt={"image": 1},
            **options,
        )
        self._graphs = self.llm.llm_engine.model_runner.graphs
        self._told: set[int] = set()
        print(f"{0 if self._graphs is None else len(self._graphs)} CUDA graphs")
        for line in self.llm.llm_engine.memory_plan.lines():
            print(line)

    def __call__(self, requests: list[Request], new_tokens: int) -> list[list[int]]:
        """Generate."""
        from mmcore import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=new_tokens, ignore_eos=True)
        outputs = self.llm.generate(self.prompts(requests), params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def prompts(self, requests: list[Request]) -> list[Any]:
        """Write requests as prompts."""
        return [
            {
                "prompt_token_ids": [*request.before, self._image_token, *request.after],
                "multi_modal_data": {"image": request.picture},
            }
            for request in requests
        ]

    def tell_floor(self, batch: int) -> None:
        """Print what a decode step's graph takes alone; once for each batch size."""
        if self._graphs is None or batch in self._told:
            return
        self._told.add(batch)
        try:
            ms = self._graphs.device_ms(batch)
        except (KeyError, IndexError):  # no graph of this size
            return
        print(f"batch {batch}: {ms:.2f} ms a token in the graph alone, without logits")


def transformers_engine(folder: Path, shape: Shape, device: str) -> Generate:
    """Serve with `generate` of transformers, as one batch of equal lengths."""
    from transformers import AutoConfig, AutoImageProcessor, LlavaForConditionalGeneration

    config = AutoConfig.from_pretrained(folder)
    processors: Any = AutoImageProcessor
    processor = processors.from_pretrained(folder)
    model_class: Any = LlavaForConditionalGeneration
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = model_class._from_config(config, attn_implementation="sdpa").eval()
    finally:
        torch.set_default_dtype(before)

    @torch.inference_mode()
    def generate(requests: list[Request], new_tokens: int) -> list[list[int]]:
        pictures = [request.picture for request in requests]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
        media = [shape.image_token] * shape.rows
        ids = torch.tensor([[*r.before, *media, *r.after] for r in requests]).to(device)
        made = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels.to(device, torch.bfloat16),
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            eos_token_id=None,
            pad_token_id=0,
        )
        tokens: list[list[int]] = made[:, ids.shape[1] :].tolist()
        return tokens

    return generate


def measure(
    name: str,
    generate: Generate,
    requests: Requests,
    batch: int,
    new_tokens: int,
    rounds: int,
    start_s: float,
) -> Row:
    """Time one engine at one batch size.

    The time to first token is that of a run of its own which makes one token; what the other
    tokens take is the rest of a whole run, by the token.
    """
    generate(requests.take(batch), 8)  # warm-up
    if isinstance(generate, MmcoreEngine):
        generate.tell_floor(batch)
    first, total = [], []
    for _ in range(rounds):
        first.append(timed(generate, requests.take(batch), 1))
        total.append(timed(generate, requests.take(batch), new_tokens))
    each = [(t - statistics.median(first)) / max(1, new_tokens - 1) * 1e3 for t in total]
    row = Row(
        engine=name,
        batch=batch,
        prompt_tokens=requests.prompt_tokens,
        new_tokens=new_tokens,
        first_token_ms=statistics.median(first) * 1e3,
        token_ms=statistics.median(each),
        low_token_ms=min(each),
        high_token_ms=max(each),
        total_ms=statistics.median(total) * 1e3,
        output_tokens_per_s=batch * new_tokens / statistics.median(total),
        start_s=start_s,
    )
    print("  " + " | ".join(cells(row)), flush=True)
    return row


def timed(generate: Generate, requests: list[Request], new_tokens: int) -> float:
    """Time one call, and insist that it made what was asked for."""
    synchronize()
    start = time.perf_counter()
    tokens = generate(requests, new_tokens)
    elapsed = time.perf_counter() - start
    if len(tokens) != len(requests) or any(len(row) != new_tokens for row in tokens):
        raise AssertionError(f"expected {len(requests)} x {new_tokens} tokens")
    return elapsed


def synchronize() -> None:
    """Wait for the device, where there is one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def measure_timeline(
    name: str, engine: MmcoreEngine, requests: Requests, batches: list[int], rounds: int
) -> dict[str, Any]:
    """Print where the time of a first token goes, and that of a decode step."""
    found: dict[str, Any] = {}
    timeline = Timeline(engine.llm.llm_engine)
    engine(requests.take(1), 4)
    with timeline.open():
        parts = timeline.whole("first token", lambda: engine(requests.take(1), 1), max(rounds, 5))
    print_parts(f"{name}: first token at batch 1", parts)
    found["first token, batch 1"] = [part.as_dict() for part in parts]
    for batch in batches:
        engine(requests.take(batch), 4)
        with timeline.open():
            parts = timeline.steps(lambda b=batch: engine(requests.take(b), 24), 16)  # type: ignore[misc]
        title = f"decode step, batch {batch}"
        print_parts(f"{name}: {title}", parts)
        found[title] = [part.as_dict() for part in parts]
    if engine.llm.llm_engine.model_runner.device.type == "cuda":
        title = "first token, batch 1"
        found[f"kernels: {title}"] = busiest_kernels(
            f"{name}: {title}", lambda: engine(requests.take(1), 1)
        )
        for batch in batches:
            title = f"first token and 7 more, batch {batch}"
            found[f"kernels: {title}"] = busiest_kernels(
                f"{name}: {title}",
                lambda b=batch: engine(requests.take(b), 8),  # type: ignore[misc]
            )
    return found


def measure_requests(
    name: str, generate: Generate, requests: Requests, count: int, new_tokens: int
) -> dict[str, Any]:
    """Give many requests at once, and count how many end in a second."""
    generate(requests.take(min(count, 32)), 4)
    before = metrics_of(generate)
    elapsed = timed(generate, requests.take(count), new_tokens)
    counted = {name: value - before[name] for name, value in metrics_of(generate).items()}
    print(
        f"{name}: {count} requests of {new_tokens} tokens in {elapsed:.2f} s: "
        f"{count / elapsed:.2f} requests/s, {count * new_tokens / elapsed:.0f} output tokens/s",
        flush=True,
    )
    if counted:
        print("  " + ", ".join(f"{name} {value}" for name, value in counted.items()), flush=True)
    return {
        "engine": name,
        "metrics": counted,
        "requests": count,
        "new_tokens": new_tokens,
        "seconds": elapsed,
        "requests_per_s": count / elapsed,
    }


def metrics_of(generate: Generate) -> dict[str, int]:
    """Give the counters of an engine that say what its steps were; none of a rival's."""
    if not isinstance(generate, MmcoreEngine):
        return {}
    names = ("steps", "steps_ahead", "rows_surplus", "tokens_planned", "preemptions")
    metrics = generate.llm.llm_engine.metrics()
    return {name: metrics[name] for name in names}


def since_process_start() -> float:
    """Give the seconds since this process began, imports and all."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def cells(row: Row) -> list[str]:
    """Write a row for the table."""
    return [
        row.engine, str(row.batch), f"{row.first_token_ms:.1f}", f"{row.token_ms:.2f}",
        f"{row.low_token_ms:.2f} to {row.high_token_ms:.2f}", f"{row.total_ms:.0f}",
        f"{row.output_tokens_per_s:.0f}", f"{row.start_s:.1f}",
    ]  # fmt: skip


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    for variant, options in VARIANTS.items():
        told = ", ".join(f"{name}={value!r}" for name, value in options.items())
        parser.add_argument(
            f"--{variant}", dest="variants", action="append_const", const=variant, default=[],
            help=f"measure {told}, too",
        )  # fmt: skip
    parser.add_argument("--arrivals", type=int, default=0, help="so many run while others come")
    parser.add_argument("--no-rival", action="store_true", help="leave transformers out")
    parser.add_argument("--timeline", action="store_true", help="say where the time goes")
    parser.add_argument("--requests", type=int, default=0, help="give so many at once, too")
    parser.add_argument("--picture", type=picture_size, help="WIDTHxHEIGHT; the model's own")
    parser.add_argument("--tiny", action="store_true", help="a tiny model instead")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--json", type=Path, help="store the rows here")
    return parser.parse_args()


def picture_size(text: str) -> tuple[int, int]:
    """Read 1024x768."""
    width, _, height = text.partition("x")
    return int(width), int(height)


def main() -> None:
    """Measure and print."""
    options = parse_options()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("mmcore").setLevel(logging.INFO)

    shape = TINY if options.tiny else SEVEN_B
    batches = options.batch or [1, 32]
    document: dict[str, Any] = {
        "model": shape.name, "rows": [], "timelines": {}, "throughput": [],
        "arrivals": [],
    }  # fmt: skip
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(shape, folder)

        def mmcore_engine(variant: str = "") -> MmcoreEngine:
            how = VARIANTS.get(variant, {})
            return MmcoreEngine(folder, shape, options.device, batch=max(batches), **how)

        makers: dict[str, Callable[[], Generate]] = {"mmcore": mmcore_engine}
        for variant in options.variants:
            makers[f"mmcore {variant}"] = lambda v=variant: mmcore_engine(v)  # type: ignore[misc]
        if not options.no_rival:
            makers["transformers"] = lambda: transformers_engine(folder, shape, options.device)
        for engine, make in makers.items():
            requests = Requests(shape, options.picture)
            start = time.perf_counter()
            generate = make()
            start_s = time.perf_counter() - start
            if "ready_s" not in document:
                document["ready_s"] = since_process_start()
                print(f"{engine} is ready {document['ready_s']:.1f} s after the process's start")
            rows += [
                measure(
                    engine, generate, requests, batch, options.new_tokens, options.rounds, start_s
                )
                for batch in batches
            ]
            if isinstance(generate, MmcoreEngine):
                if options.arrivals:
                    document["arrivals"].append(
                        measure_arrivals(
                            engine,
                            generate.llm.llm_engine,
                            lambda n, g=generate, r=requests: g.prompts(r.take(n)),  # type: ignore[misc]
                            options.arrivals,
                            3 * options.rounds,
                        )
                    )
                if options.requests:
                    document["throughput"].append(
                        measure_requests(
                            engine, generate, requests, options.requests, options.new_tokens
                        )
                    )
                if options.timeline:
                    document["timelines"][engine] = measure_timeline(
                        engine, generate, requests, batches, options.rounds
                    )
            del generate
            gc.collect()
            if options.device == "cuda":
                torch.cuda.empty_cache()
    on_gpu = options.device == "cuda"
    device = torch.cuda.get_device_name() if on_gpu else cpu_name()
    print(
        f"\n{device}, torch {torch.__version__}; {shape.name}, random bfloat16 weights, "
        f"{shape.rows} + {TEXT_TOKENS} prompt tokens, {options.new_tokens} new ones"
    )
    header = [
        "engine", "batch", "first token ms", "ms a token", "range", "total ms", "output tokens/s",
        "start s",
    ]  # fmt: skip
    print_table(header, [cells(row) for row in rows])
    if options.json is not None:
        document |= {
            "device": device,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
