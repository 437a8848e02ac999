"""The native runner against references that transformers made in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.oracle import ABSENT, ORACLE, Reference, make_reference
from native.pillow import REASON, differs
from native.programs import encode, picture_files, program, run_job

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not ORACLE.is_dir(), reason=ABSENT),
]

ARCHS = ("llama", "qwen2", "mistral", "llava")
MARGIN = 1e-4  # between the best two logits: closer ones two correct engines may swap
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=ARCHS)
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    program("generate")
    root = tmp_path_factory.getbasetemp() / "oracle"
    root.mkdir(exist_ok=True)
    return make_reference(request.param, root)


@pytest.mark.parametrize(
    "options",
    [{}, {"together": False}, {"max_num_batched_tokens": 23}],
    ids=["together", "one by one", "chunked"],
)
def test_greedy_tokens_and_first_logprobs(
    reference: Reference, options: dict[str, Any], tmp_path: Path
) -> None:
    texts = [case.prompt["prompt"] for case in reference.cases]
    encoded = encode(reference.checkpoint, texts, tmp_path)
    requests = []
    for case, tokens in zip(reference.cases, encoded, strict=True):
        images = case.prompt.get("multi_modal_data", {}).get("image", [])
        if not images:
            # Of a Qwen2 checkpoint transformers splits digits, whatever tokenizer.json says.
            assert tokens == case.prompt_token_ids or reference.arch == "qwen2"
            tokens = case.prompt_token_ids
        requests.append(
            {
                "tokens": tokens,
                "images": picture_files(images, tmp_path),
                "max_tokens": len(case.output_token_ids),
                "logprobs": 20,
                "ignore_eos": True,
            }
        )
    job = {"checkpoint": str(reference.checkpoint), "dtype": "float32", "requests": requests}
    outputs = run_job("generate", tmp_path, job | options)["outputs"]
    other_pictures = []
    for case, output in zip(reference.cases, outputs, strict=True):
        images = case.prompt.get("multi_modal_data", {}).get("image", [])
        if any(differs(image, reference.checkpoint) for image in images):
            other_pictures.append(case.id)
            continue
        tight = next((i for i, m in enumerate(case.margins) if m < MARGIN), len(case.margins))
        assert output["tokens"][:tight] == case.output_token_ids[:tight], case.id
        logits = case.first_logits.astype(np.float64)
        want = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        assert len(output["logprobs"][0]) == 21
        for token, logprob in output["logprobs"][0]:
            assert abs(logprob - want[token]) < TOLERANCE, (case.id, token)
    if other_pictures:  # all other cases hold
        pytest.skip(f"{', '.join(other_pictures)} not compared: {REASON}")
