"""Whole requests with a KV cache of 8-bit floats against the same with the model's dtype.

Layer: whole engine, random weights. A key or value of e4m3 is off by up to 1 in 16, at random; over
a model's layers this moved the oracle's logits by less than MARGIN of their spread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e.oracle import ABSENT, ORACLE, Reference, make_reference
from gpu.needs_gpu import GPU
from safetensors.torch import load_file, save_file

from mmcore import LLM, SamplingParams

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not ORACLE.is_dir(), reason=ABSENT),
]

# Of the standard deviation of a row's logits: the root mean square of the error.
MARGIN = 0.1
# Floats as a checkpoint holds them; no power of two, which would change no bit of the mantissa.
K_SCALE, V_SCALE = 0.15625, 0.21875
CASES = 4  # of the nine: each is a whole request
GREEDY = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=GPU)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["llama", "llava"])
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    root = tmp_path_factory.getbasetemp() / "oracle"
    root.mkdir(exist_ok=True)
    return make_reference(request.param, root)


class Run:
    """The cases' tokens, and the logits of each case's first one."""

    def __init__(self, checkpoint: Path, reference: Reference, device: str, **options: Any) -> None:
        if reference.multimodal:
            options["limit_mm_per_prompt"] = {"image": 2}
        options.setdefault("dtype", "float32")
        self.llm = LLM(str(checkpoint), num_gpu_blocks_override=400, device=device, **options)
        model: Any = self.llm.llm_engine.model_runner.model
        original, rows = model.compute_logits, []

        def recording(*args: Any, **kwargs: Any) -> Any:
            logits = original(*args, **kwargs)
            rows.append(logits.float().cpu().numpy().copy())
            return logits

        model.compute_logits = recording
        self.tokens, self.first = [], []
        for case in reference.cases[:CASES]:
            rows.clear()
            [output] = self.llm.generate([case.prompt], GREEDY, use_tqdm=False)
            assert output.error is None
            self.tokens.append(list(output.outputs[0].token_ids))
            self.first.append(rows[0][-1].astype(np.float64))
        del model.compute_logits


def error_of(got: np.ndarray, want: np.ndarray) -> float:
    """Root mean square over the spread of `want`; a constant is no difference."""
    difference = (got - got.mean()) - (want - want.mean())
    return float(np.sqrt(np.square(difference).mean()) / want.std())


def test_logits_stay_close_and_tokens_with_them(reference: Reference, device: str) -> None:
    exact = Run(reference.checkpoint, reference, device)
    rough = Run(reference.checkpoint, reference, device, kv_cache_dtype="fp8")
    assert rough.llm.llm_engine.model_runner.kv_caches[0].dtype == torch.float8_e4m3fn
    same = 0
    for case, want, got, tokens, rough_tokens in zip(
        reference.cases[:CASES], exact.first, rough.first, exact.tokens, rough.tokens,
        strict=True,
    ):  # fmt: skip
        error = error_of(got, want)
        assert 0 < error < MARGIN, f"{case.id}: {error:.3f} of the logits' spread"
        # A token whose lead is several times the error cannot change.
        if case.margins[0] > 8 * error * want.std():
            assert rough_tokens[0] == tokens[0] == int(want.argmax()), case.id
            same += 1
    assert same > 0, "no case has a clear first token"


def test_a_step_at_a_time_is_all_at_once(reference: Reference, device: str) -> None:
    """What is read from the cache is the same however the prompt was cut."""
    whole = Run(reference.checkpoint, reference, device, kv_cache_dtype="fp8")
    parts = Run(reference.checkpoint, reference, device, kv_cache_dtype="fp8", max_prefill_chunk=5)
    for case, a, b in zip(reference.cases[:CASES], whole.first, parts.first, strict=True):
        # Rounding may go the other way for a number that summation order has moved.
        assert error_of(a, b) < MARGIN / 4, case.id


def test_scales_of_the_checkpoint_are_used(
    reference: Reference, device: str, tmp_path: Path
) -> None:
    if reference.arch != "llama":
        pytest.skip("one architecture shows it")
    for file in reference.checkpoint.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors: dict[str, torch.Tensor] = {}
    for file in reference.checkpoint.glob("*.safetensors"):
        tensors |= load_file(file)
    layers = {n.partition(".self_attn.")[0] for n in tensors if ".self_attn." in n}
    for layer in layers:
        tensors[f"{layer}.self_attn.k_scale"] = torch.tensor([K_SCALE])
        tensors[f"{layer}.self_attn.v_scale"] = torch.tensor([V_SCALE])
    (tmp_path / "model.safetensors.index.json").unlink(missing_ok=True)
    save_file(tensors, tmp_path / "model.safetensors")
    plain = Run(reference.checkpoint, reference, device)
    scaled = Run(tmp_path, reference, device, kv_cache_dtype="fp8")
    unscaled = Run(tmp_path, reference, device)
    attention = [
        m for m in scaled.llm.llm_engine.model_runner.model.modules() if hasattr(m, "k_scale")
    ]
    assert {(m.k_scale, m.v_scale) for m in attention} == {(K_SCALE, V_SCALE)}
    for a, b, c in zip(plain.first, scaled.first, unscaled.first, strict=True):
        assert 0 < error_of(b, a) < MARGIN
        assert np.array_equal(a, c), "a cache of the model's dtype must ignore the scales"
