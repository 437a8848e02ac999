"""Host offload on a tiny checkpoint: the same greedy tokens, and the host gives blocks back.

Each prompt runs alone in a pool that hardly holds it, so that the next one displaces its blocks.
"""

from __future__ import annotations

from typing import Any

import pytest
from e2e.oracle import ABSENT, ORACLE, Reference, make_reference
from gpu.needs_gpu import GPU

from mmcore import LLM, SamplingParams
from mmcore.errors import ValidationError

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not ORACLE.is_dir(), reason=ABSENT),
]
GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module", params=["llama", "llava"])
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    root = tmp_path_factory.getbasetemp() / "oracle"
    root.mkdir(exist_ok=True)
    return make_reference(request.param, root)


def make_llm(reference: Reference, device: str, **options: Any) -> LLM:
    if reference.multimodal:
        options["limit_mm_per_prompt"] = {"image": 2}
    return LLM(
        str(reference.checkpoint),
        dtype="float32",
        device=device,
        block_size=4,
        enforce_eager=True,
        **options,
    )


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_displaced_prompts_come_back(reference: Reference, device: str) -> None:
    longest = max(len(case.prompt_token_ids) for case in reference.cases) + 12
    tiny = {"num_gpu_blocks_override": -(-longest // 4) + 3, "max_model_len": longest + 4}
    plain = make_llm(reference, device, **tiny)
    offloading = make_llm(reference, device, kv_offload_gib=0.05, **tiny)
    assert "host memory for evicted blocks" in offloading.llm_engine.memory_plan.lines()[2]
    for repeat in range(2):
        before = offloading.llm_engine.metrics()
        for case in reference.cases:
            [want] = plain.generate([case.prompt], GREEDY, use_tqdm=False)
            [have] = offloading.generate([case.prompt], GREEDY, use_tqdm=False)
            assert list(have.outputs[0].token_ids) == list(want.outputs[0].token_ids), case.id
            assert offloading.llm_engine.check_invariants() == []
        after = offloading.llm_engine.metrics()
        assert after["blocks_offloaded"] > before["blocks_offloaded"] or repeat > 0
        if repeat > 0:
            # All but the last token of every prompt that was displaced is loaded, not computed.
            assert after["blocks_loaded"] - before["blocks_loaded"] > len(reference.cases)
            assert after["items_encoded"] == before["items_encoded"]
    assert plain.llm_engine.metrics()["blocks_loaded"] == 0
    offloading.llm_engine.reset_caches()
    assert offloading.llm_engine.metrics()["host_blocks_used"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_offload_gib": -1}, "kv_offload_gib must be at least 0, got -1"),
        ({"kv_offload_gib": "much"}, "kv_offload_gib must be a number, got 'much'"),
        ({"kv_offload_gib": 1, "enable_prefix_caching": False}, "without enable_prefix_caching"),
        ({"kv_offload_gib": 1e-9}, "less than one KV block"),
        ({"kv_offload_gib": 1e6, "num_gpu_blocks_override": 64}, "only .* GiB are available"),
    ],
)
def test_bad_options(reference: Reference, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_llm(reference, "cpu", **options)
