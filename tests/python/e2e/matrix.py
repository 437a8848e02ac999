"""The equality matrix: its axes, which cells the quick suite runs, and how one cell is run."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from e2e.matrix_reference import IMAGES, MAX_TOKENS
from e2e.oracle import ORACLE, SEED, make_checkpoints, run_script
from PIL import Image

from mmcore import LLM, RequestOutput, SamplingParams

MARGIN = (
    1e-3  # a prompt whose best two logits come closer is left out: two correct engines may part
)
BLOCK = 4  # tokens
FULL = os.environ.get("MMCORE_TEST_MATRIX") == "full"


@dataclass(frozen=True)
class Cell:
    """One way to run a batch of prompts."""

    cache: str = "cold"
    preempt: bool = False
    chunk: int = 0  # tokens; 0: a prompt runs whole
    images: int = 1
    batch: int = 16
    offload: bool = False
    overlap: bool = False  # steps are planned while the one before runs

    def __str__(self) -> str:
        preempt = "preempted" if self.preempt else "roomy"
        chunk = f"chunk{self.chunk}" if self.chunk else "whole"
        host = "-offload" if self.offload else ""
        ahead = "-overlap" if self.overlap else ""
        return f"{self.cache}-{preempt}-{chunk}-{self.images}images-batch{self.batch}{host}{ahead}"


AXES: dict[str, tuple[Any, ...]] = {
    "cache": ("off", "cold", "warm"),
    "preempt": (False, True),
    "chunk": (0, 1, 3, 17),
    "images": IMAGES,
    "batch": (16, 1),
    "offload": (False, True),
    "overlap": (False, True),
}
assert tuple(AXES) == tuple(field.name for field in fields(Cell))


def product(images: Sequence[int]) -> list[Cell]:
    """Every cell; without a prefix cache there is nothing to offload."""
    axes = AXES | {"images": tuple(images)}
    every = (Cell(*values) for values in itertools.product(*axes.values()))
    return [cell for cell in every if cell.cache != "off" or not cell.offload]


def covering(images: Sequence[int]) -> list[Cell]:
    """Cells in which each pair of two axes' values occurs, and each value alone beside the base."""
    every = product(images)
    base = Cell(images=images[-1])
    chosen = [base]
    for name in AXES:
        values = images if name == "images" else AXES[name]
        chosen += [replace(base, **{name: v}) for v in values if v != getattr(base, name)]

    def pairs(cell: Cell) -> set[tuple[Any, ...]]:
        values = [(name, getattr(cell, name)) for name in AXES]
        return set(itertools.combinations(values, 2))

    missing = set().union(*map(pairs, every)) - set().union(*map(pairs, chosen))
    while missing:
        best = max(every, key=lambda cell: len(pairs(cell) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


@dataclass(frozen=True)
class Expected:
    """A prompt and the tokens that transformers gave for it."""

    prompt: dict[str, Any]
    prompt_token_ids: list[int]
    output_token_ids: list[int]


@dataclass(frozen=True)
class MatrixReference:
    """A checkpoint with its companion and, by the number of images, its prompts."""

    checkpoint: Path
    companion: Expected
    prompts: dict[int, list[Expected]]


def make_references(archs: Sequence[str], root: Path) -> dict[str, MatrixReference]:
    """Write the checkpoints `archs` and their references below `root`, and read them."""
    checkpoints = make_checkpoints(archs, root)
    out = root / "matrix"
    script = Path(__file__).with_name("matrix_reference.py")
    run_script(script, ORACLE, *checkpoints, "--out", out, "--seed", str(SEED))
    return {path.name: _read(path, out) for path in checkpoints}


def _read(checkpoint: Path, folder: Path) -> MatrixReference:
    loaded = json.loads((folder / f"{checkpoint.name}.json").read_text())
    companion = max(loaded["companions"], key=lambda one: float(one["margin"]))
    prompts = {
        int(count): [_expected(one, folder) for one in many if one["margin"] >= MARGIN]
        for count, many in loaded["prompts"].items()
    }
    return MatrixReference(checkpoint, _expected(companion, folder), prompts)


def _expected(loaded: dict[str, Any], folder: Path) -> Expected:
    prompt: dict[str, Any] = {"prompt": loaded["prompt"]}
    if loaded["images"]:
        images = [Image.open(folder / name).convert("RGB") for name in loaded["images"]]
        prompt["multi_modal_data"] = {"image": images}
    return Expected(prompt, loaded["prompt_token_ids"], loaded["output_token_ids"])


def run_cell(reference: MatrixReference, cell: Cell) -> None:
    """Run one cell; fails unless all tokens are those of transformers and the cell was real."""
    batch = reference.prompts[cell.images][: cell.batch]
    assert len(batch) == cell.batch, f"only {len(batch)} prompts have a margin of {MARGIN}"
    batch.sort(key=lambda one: -len(one.prompt_token_ids))
    # Alone nobody is preempted: the companion comes first, and takes the longest prompt's memory.
    crowd = [reference.companion, *batch] if cell.preempt else batch
    longest = len(batch[0].prompt_token_ids)
    steps = -(-longest // (cell.chunk or longest)) + MAX_TOKENS if cell.preempt else 0
    llm = _make_llm(reference, cell, crowd)
    engine = llm.llm_engine
    _check(crowd, _generate(llm, crowd, steps))
    first = engine.metrics()
    if cell.cache == "off":
        assert first["prefix_tokens_hit"] == first["blocks_cached"] == 0
    elif cell.batch == 1 and not cell.preempt:
        assert first["prefix_tokens_hit"] == 0
    if cell.cache == "warm":
        if cell.offload:
            _fill_pool(llm)
        _check(crowd, _generate(llm, crowd, steps))
    last = engine.metrics()
    if cell.cache == "warm":
        hit = last["prefix_tokens_hit"] - first["prefix_tokens_hit"]
        full = sum((len(one.prompt_token_ids) - 1) // BLOCK * BLOCK for one in batch)
        assert hit >= (1 if cell.preempt else full), f"{hit} tokens hit, of {full}"
        if not cell.preempt:
            assert last["items_encoded"] == first["items_encoded"], "an image was encoded again"
    again = last["preemptions"] - (first["preemptions"] if cell.cache == "warm" else 0)
    assert (again > 0) == cell.preempt, f"{again} preemptions"
    loaded = last["blocks_loaded"] - first["blocks_loaded"]
    assert (loaded > 0) == (cell.offload and cell.cache == "warm"), f"{loaded} blocks loaded"
    if cell.chunk:
        assert last["steps"] >= longest / cell.chunk, "prompts were not chunked"
    if cell.images and cell.cache != "warm":
        assert last["items_encoded"] > 0
    assert (last["steps_ahead"] > 0) == cell.overlap, f"{last['steps_ahead']} steps overlapped"
    assert last["blocks_used"] == last["encoder_entries_pinned"] == 0
    assert engine.check_invariants() == []


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK)


def _fill_pool(llm: LLM) -> None:
    """Other prompts take every block: what was cached is in host memory after that, or gone."""
    tokens = llm.llm_engine.metrics()["blocks_total"] * BLOCK
    length = min(tokens, 1500) - BLOCK
    others = [
        {"prompt_token_ids": [10 + (number + i * i) % 400 for i in range(length)]}
        for number in range(-(-tokens // length))
    ]
    llm.generate(others, SamplingParams(temperature=0.0, max_tokens=1), use_tqdm=False)


def _make_llm(reference: MatrixReference, cell: Cell, crowd: list[Expected]) -> LLM:
    options: dict[str, Any] = {"num_gpu_blocks_override": 2048}
    if cell.preempt:  # the companion and the longest prompt enter together, and cannot both grow
        begin, longest = (len(one.prompt_token_ids) for one in crowd[:2])
        options["num_gpu_blocks_override"] = 1 + _blocks(begin) + _blocks(longest + 1) + 2
        options["headroom"] = 0
    elif cell.offload:  # room for all, and not much more
        ends = (len(one.prompt_token_ids) + 2 * MAX_TOKENS for one in crowd)
        options["num_gpu_blocks_override"] = 1 + sum(map(_blocks, ends))
    if cell.offload:
        options["kv_offload_gib"] = 0.05
    if cell.images:
        options["limit_mm_per_prompt"] = {"image": cell.images}
    return LLM(
        model=str(reference.checkpoint),
        dtype="float32",
        device="cpu",
        block_size=BLOCK,
        max_num_batched_tokens=8192,  # so that whole prompts are whole
        max_prefill_chunk=cell.chunk,
        enable_prefix_caching=cell.cache != "off",
        async_scheduling=cell.overlap,
        **options,
    )


def _generate(llm: LLM, crowd: list[Expected], steps: int) -> list[RequestOutput]:
    """Outputs; the first request, if it is the companion, outlives `steps`."""
    params = [
        SamplingParams(temperature=0.0, max_tokens=len(one.output_token_ids), ignore_eos=True)
        for one in crowd
    ]
    params[0].max_tokens = max(steps, len(crowd[0].output_token_ids))
    return llm.generate([one.prompt for one in crowd], params, use_tqdm=False)


def _check(crowd: list[Expected], outputs: list[RequestOutput]) -> None:
    for one, output in zip(crowd, outputs, strict=True):
        assert output.error is None
        assert output.prompt_token_ids == one.prompt_token_ids
        tokens = list(output.outputs[0].token_ids)
        known = len(one.output_token_ids)
        if known > MAX_TOKENS:  # the companion, which runs for as long as it must and can
            known = min(known, len(tokens))
            assert known >= MAX_TOKENS
        assert tokens[:known] == one.output_token_ids[:known], one.prompt["prompt"]
