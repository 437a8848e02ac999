"""LLM.beam_search against generate(num_beams=...) of Hugging Face transformers in float32.

With early_stopping="never" both searches are the same, for every length penalty. transformers'
default, False, stops by a rule of thumb when the penalty is positive; ours never finds worse.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from e2e.oracle import ABSENT, ORACLE, Reference, make_reference, run_script
from gpu.needs_gpu import GPU

from mmcore import LLM, BeamSearchParams, MediaError, SamplingParams, ValidationError

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not ORACLE.is_dir(), reason=ABSENT),
]
MAX_TOKENS = 9  # of beam_reference.py
TOLERANCE = 1e-4  # of a score


@pytest.fixture(scope="module", params=["llama", "llava"])
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    root = tmp_path_factory.getbasetemp() / "oracle"
    root.mkdir(exist_ok=True)
    return make_reference(request.param, root)


@pytest.fixture(scope="module")
def beams(reference: Reference) -> dict[str, Any]:
    """The searches of transformers, and a checkpoint whose texts end with their tokens."""
    root = reference.checkpoint.parent
    path = root / "references" / f"{reference.arch}_beams.json"
    if not path.exists():
        run_script(
            Path(__file__).with_name("beam_reference.py"),
            ORACLE,
            reference.checkpoint,
            root / "references" / f"{reference.arch}.json",
            "--out",
            path,
        )
    loaded: dict[str, Any] = json.loads(path.read_text())
    folder = root / f"{reference.arch}_that_ends"
    if not folder.exists():
        folder.mkdir()
        for file in reference.checkpoint.iterdir():
            if file.name != "generation_config.json":
                os.symlink(file, folder / file.name)
        ends = json.dumps({"eos_token_id": loaded["eos"]})
        (folder / "generation_config.json").write_text(ends)
    loaded["checkpoint"] = folder
    return loaded


def make_llm(beams: dict[str, Any], reference: Reference, device: str, **options: Any) -> LLM:
    if reference.multimodal:
        options["limit_mm_per_prompt"] = {"image": 2}
    options.setdefault("num_gpu_blocks_override", 400)
    return LLM(str(beams["checkpoint"]), dtype="float32", device=device, **options)


def params_of(search: dict[str, Any]) -> BeamSearchParams:
    return BeamSearchParams(
        search["width"],
        MAX_TOKENS,
        length_penalty=search["penalty"],
        ignore_eos=search["ignore_eos"],
    )


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_equals_transformers(beams: dict[str, Any], reference: Reference, device: str) -> None:
    llm = make_llm(beams, reference, device, block_size=4)
    prompts = {case.id: case for case in reference.cases}
    ended = 0
    for search in beams["searches"]:
        case = prompts[search["case"]]
        params = params_of(search)
        [output] = llm.beam_search([case.prompt], params)
        name = {key: search[key] for key in ("case", "width", "penalty", "early_stopping")}
        assert len(output.sequences) == search["width"]
        have, scores = [], []
        for sequence in output.sequences:
            count = sequence.num_prompt_tokens
            assert sequence.tokens[:count] == case.prompt_token_ids
            have.append(sequence.tokens[count:])
            scores.append(sequence.cum_logprob / len(have[-1]) ** params.length_penalty)
            stops = not search["ignore_eos"] and have[-1][-1] in beams["eos"]
            assert sequence.finish_reason == ("stop" if stops else "length")
            assert len(sequence.logprobs) == len(have[-1])
            ended += stops
        if search["early_stopping"] == "never":
            assert scores == pytest.approx(search["scores"], abs=TOLERANCE), name
            assert have == search["sequences"], name
        else:
            assert scores[0] >= search["scores"][0] - TOLERANCE, name
    assert ended > 0, "no search met an end of text"
    assert llm.llm_engine.check_invariants() == []
    assert llm.llm_engine.metrics()["blocks_used"] == 0


def test_prompts_together_and_without_caches(beams: dict[str, Any], reference: Reference) -> None:
    names = list(dict.fromkeys(search["case"] for search in beams["searches"]))
    prompts = [case.prompt for case in reference.cases if case.id in names]
    params = BeamSearchParams(3, 6)
    llm = make_llm(beams, reference, "cpu", max_num_seqs=4, max_num_batched_tokens=64)
    together = llm.beam_search(prompts, params)
    before = llm.llm_engine.metrics()
    alone = [llm.beam_search(prompt, params)[0] for prompt in prompts]
    after = llm.llm_engine.metrics()
    bare = make_llm(beams, reference, "cpu", enable_prefix_caching=False)
    for one, two, three in zip(together, alone, bare.beam_search(prompts, params), strict=True):
        for a, b, c in zip(one.sequences, two.sequences, three.sequences, strict=True):
            assert a.tokens == b.tokens == c.tokens
            assert a.text == b.text == c.text
    # The beams share their prompt: a prompt's blocks are computed once, an image is encoded once.
    assert after["items_encoded"] == before["items_encoded"]
    hits = after["prefix_tokens_hit"] - before["prefix_tokens_hit"]
    assert hits > 0.7 * (after["prefix_tokens_queried"] - before["prefix_tokens_queried"])


def test_the_end_of_the_model_ends_the_beams(beams: dict[str, Any], reference: Reference) -> None:
    case = next(c for c in reference.cases if c.kind == "text")
    length = len(case.prompt_token_ids) + 3
    llm = make_llm(beams, reference, "cpu", max_model_len=length)
    params = BeamSearchParams(2, 50, ignore_eos=True)
    [output] = llm.beam_search(case.prompt, params)
    assert [len(s.tokens) for s in output.sequences] == [length, length]
    assert {s.finish_reason for s in output.sequences} == {"length"}


def test_what_cannot_be_searched(beams: dict[str, Any], reference: Reference) -> None:
    llm = make_llm(beams, reference, "cpu", max_logprobs=6)
    good = reference.cases[0].prompt
    with pytest.raises(ValidationError, match=r"beam_width=5 needs .* max_logprobs is 6"):
        llm.beam_search(good, BeamSearchParams(5, 4))
    assert len(llm.beam_search(good, BeamSearchParams(4, 4))[0].sequences) == 4
    with pytest.raises(ValidationError, match="params must be BeamSearchParams, got Sampling"):
        llm.beam_search(good, SamplingParams())  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="Prompt cannot be empty"):
        llm.beam_search([good, {"prompt_token_ids": []}], BeamSearchParams(2, 4))
    with pytest.raises((MediaError, ValidationError)):
        bad = {"prompt": "<image>", "multi_modal_data": {"image": "no picture"}}
        llm.beam_search([bad], BeamSearchParams(2, 4))
    assert not llm.llm_engine.has_unfinished_requests()
    assert len(llm.generate([good], SamplingParams(max_tokens=2), use_tqdm=False)) == 1


def test_text_of_the_ended(beams: dict[str, Any], reference: Reference) -> None:
    llm = make_llm(beams, reference, "cpu")
    ending = [s for s in beams["searches"] if s["early_stopping"] == "never"]
    search = next(s for s in ending if s["sequences"][0][-1] in beams["eos"])
    case = next(c for c in reference.cases if c.id == search["case"])
    params = params_of(search)
    whole = BeamSearchParams(
        params.beam_width,
        params.max_tokens,
        length_penalty=params.length_penalty,
        include_stop_str_in_output=True,
    )
    tokenizer = llm.get_tokenizer()
    tokens = search["sequences"][0]
    [output] = llm.beam_search(case.prompt, params)
    assert output.sequences[0].text == tokenizer.decode(tokens[:-1], skip_special_tokens=True)
    [output] = llm.beam_search(case.prompt, whole)
    assert output.sequences[0].text == tokenizer.decode(tokens, skip_special_tokens=False)
