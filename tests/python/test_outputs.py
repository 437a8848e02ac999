"""Unit: what a request's output holds."""

from __future__ import annotations

from mmcore.errors import InternalError
from mmcore.outputs import CompletionOutput, Logprob, RequestOutput


def test_completion_is_finished_once_it_has_a_reason() -> None:
    output = CompletionOutput(index=0, text="a", token_ids=[1])
    assert not output.finished()
    output.finish_reason = "stop"
    assert output.finished()


def test_seed_era_positional_order() -> None:
    output = RequestOutput("r", "text", [1, 2], [None, {2: Logprob(-0.5, 1, "b")}], [], True)
    assert output.prompt_token_ids == [1, 2]
    assert output.finished
    assert output.error is None
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[1] == {2: Logprob(-0.5, rank=1, decoded_token="b")}


def test_outputs_do_not_share_their_sequences() -> None:
    first, second = (RequestOutput(name, None, None, None) for name in "ab")
    first.outputs.append(CompletionOutput(0, "", []))
    assert second.outputs == []


def test_a_failed_request_says_why() -> None:
    output = RequestOutput("r", None, [1], None, finished=True, error=InternalError("broken"))
    assert output.error is not None
    assert output.error.code == "internal_error"
