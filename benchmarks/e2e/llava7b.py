"""LLaVA-1.5-7B on a GPU, against Hugging Face transformers in the same run: random weights.

    python -m benchmarks.e2e.llava7b [--batch 1 --batch 32] [--new-tokens 128] [--json FILE]
        [--eager] [--no-rival]

The shape is LLaVA-1.5-7B's: CLIP ViT-L/14 at 336 pixels and a Llama of 32 layers, in bfloat16. No
weights are read: both sides draw them at random, so that tokens mean nothing and speed does. Every
request is a picture of its own, 576 rows, and 65 tokens of text; end-of-text is ignored. Pictures
are prepared inside the measured time on both sides. The rival is `generate` with SDPA and a static
batch of one length.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import print_table

IMAGE_TOKEN = 32000
TEXT_TOKENS = 65
SIZE = 336
ROWS = (SIZE // 14) ** 2
CONFIG: dict[str, Any] = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "dtype": "bfloat16",
    "image_token_index": IMAGE_TOKEN,
    "image_seq_length": ROWS,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "tie_word_embeddings": False,
    "text_config": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 32064,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "dtype": "bfloat16",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 32001,
    },
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": SIZE,
        "patch_size": 14,
        "projection_dim": 768,
    },
}
PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "crop_size": {"height": SIZE, "width": SIZE},
    "size": {"shortest_edge": SIZE},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
}


@dataclass(frozen=True, slots=True)
class Request:
    """A picture, and the tokens around its placeholder."""

    picture: Image.Image
    before: list[int]
    after: list[int]


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


class Requests:
    """An endless row of requests that share nothing, the same in every run."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def take(self, count: int) -> list[Request]:
        """Give the next ones."""
        made = []
        for _ in range(count):
            pixels = self._random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            text = self._random.integers(5, 31000, TEXT_TOKENS - 1).tolist()
            made.append(Request(Image.fromarray(pixels), [1, *text[:4]], text[4:]))
        return made


Generate = Callable[[list[Request], int], list[list[int]]]


def write_checkpoint(folder: Path) -> None:
    """Write all of a checkpoint that is not weights."""
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR), encoding="utf-8")


def mmcore_engine(folder: Path, *, eager: bool, batch: int) -> Generate:
    """Serve with mmcore."""
    from mmcore import LLM, SamplingParams

    llm = LLM(
        str(folder),
        skip_tokenizer_init=True,
        load_format="dummy",
        device="cuda",
        enforce_eager=eager,
        max_num_seqs=max(batch, 256),
        limit_mm_per_prompt={"image": 1},
    )
    graphs = llm.llm_engine.model_runner.graphs
    print(f"{0 if graphs is None else len(graphs)} CUDA graphs")
    for line in llm.llm_engine.memory_plan.lines():
        print(line)

    told: set[int] = set()

    def generate(requests: list[Request], new_tokens: int) -> list[list[int]]:
        params = SamplingParams(temperature=0.0, max_tokens=new_tokens, ignore_eos=True)
        prompts: Any = [
            {
                "prompt_token_ids": [*request.before, IMAGE_TOKEN, *request.after],
                "multi_modal_data": {"image": request.picture},
            }
            for request in requests
        ]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        if graphs is not None and len(requests) not in told:  # in the warm-up
            told.add(len(requests))
            ms = graphs.device_ms(len(requests))
            print(f"batch {len(requests)}: {ms:.2f} ms a token in the graph alone, without logits")
        return [list(output.outputs[0].token_ids) for output in outputs]

    return generate


def transformers_engine(folder: Path) -> Generate:
    """Serve with `generate` of transformers, as one batch of equal lengths."""
    from transformers import AutoConfig, AutoImageProcessor, LlavaForConditionalGeneration

    config = AutoConfig.from_pretrained(folder)
    processors: Any = AutoImageProcessor
    processor = processors.from_pretrained(folder)
    model_class: Any = LlavaForConditionalGeneration
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            model = model_class._from_config(config, attn_implementation="sdpa").eval()
    finally:
        torch.set_default_dtype(before)

    @torch.inference_mode()
    def generate(requests: list[Request], new_tokens: int) -> list[list[int]]:
        pictures = [request.picture for request in requests]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
        ids = torch.tensor([[*r.before, *[IMAGE_TOKEN] * ROWS, *r.after] for r in requests])
        made = model.generate(
            input_ids=ids.cuda(),
            attention_mask=torch.ones_like(ids).cuda(),
            pixel_values=pixels.to("cuda", torch.bfloat16),
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
    name: str, generate: Generate, batch: int, new_tokens: int, rounds: int, start_s: float
) -> Row:
    """Time one engine at one batch size.

    The time to first token is that of a run of its own which makes one token; what the other
    tokens take is the rest of a whole run, by the token.
    """
    requests = Requests()
    generate(requests.take(batch), 8)  # warm-up
    first, total = [], []
    for _ in range(rounds):
        first.append(timed(generate, requests.take(batch), 1))
        total.append(timed(generate, requests.take(batch), new_tokens))
    each = [(t - statistics.median(first)) / (new_tokens - 1) * 1e3 for t in total]
    row = Row(
        engine=name,
        batch=batch,
        prompt_tokens=ROWS + TEXT_TOKENS,
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
    torch.cuda.synchronize()
    start = time.perf_counter()
    tokens = generate(requests, new_tokens)
    elapsed = time.perf_counter() - start
    if len(tokens) != len(requests) or any(len(row) != new_tokens for row in tokens):
        raise AssertionError(f"expected {len(requests)} x {new_tokens} tokens")
    return elapsed


def cells(row: Row) -> list[str]:
    """Write a row for the table."""
    return [
        row.engine, str(row.batch), f"{row.first_token_ms:.1f}", f"{row.token_ms:.2f}",
        f"{row.low_token_ms:.2f} to {row.high_token_ms:.2f}", f"{row.total_ms:.0f}",
        f"{row.output_tokens_per_s:.0f}", f"{row.start_s:.1f}",
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--eager", action="store_true", help="measure mmcore without graphs, too")
    parser.add_argument("--no-rival", action="store_true", help="leave transformers out")
    parser.add_argument("--json", type=Path, help="store the rows here")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("mmcore").setLevel(logging.INFO)

    batches = options.batch or [1, 32]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder)
        makers: dict[str, Callable[[], Generate]] = {
            "mmcore": lambda: mmcore_engine(folder, eager=False, batch=max(batches))
        }
        if options.eager:
            makers["mmcore eager"] = lambda: mmcore_engine(folder, eager=True, batch=max(batches))
        if not options.no_rival:
            makers["transformers"] = lambda: transformers_engine(folder)
        for engine, make in makers.items():
            start = time.perf_counter()
            generate = make()
            start_s = time.perf_counter() - start
            rows += [
                measure(engine, generate, batch, options.new_tokens, options.rounds, start_s)
                for batch in batches
            ]
            del generate
            gc.collect()
            torch.cuda.empty_cache()
    device = torch.cuda.get_device_name()
    print(
        f"\n{device}, torch {torch.__version__}; LLaVA-1.5-7B, random bfloat16 weights, "
        f"{ROWS} + {TEXT_TOKENS} prompt tokens, {options.new_tokens} new ones"
    )
    header = [
        "engine", "batch", "first token ms", "ms a token", "range", "total ms", "output tokens/s",
        "start s",
    ]  # fmt: skip
    print_table(header, [cells(row) for row in rows])
    if options.json is not None:
        document = {
            "device": device,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
