"""mmcore._C.Engine with a runner written in Python. Layer: bindings, no model."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import fields
from typing import Any

import pytest
from bindings.fake_runner import FakeRunner, config, request, run, tokens

from mmcore import _C
from mmcore.engine.core_config import CoreConfig
from mmcore.errors import (
    EngineOverloadedError,
    InternalError,
    MediaError,
    PlaceholderMismatchError,
    UnservableRequestError,
    ValidationError,
)


def test_runs_a_request_to_its_end() -> None:
    runner = FakeRunner()
    engine = _C.Engine(config(), runner)
    request_id = engine.submit(request([5, 6, 7]))
    [outputs] = run(engine).values()
    assert tokens(outputs) == [8, 9, 10, 11]
    assert outputs[-1].finish_reason == _C.FinishReason.LENGTH
    assert outputs[-1].error is None
    assert runner.released == [request_id]
    first, second = runner.plans[:2]
    assert first["token_ids"] == [5, 6, 7]
    assert first["positions"] == [0, 1, 2]
    assert second["token_ids"] == [8]
    assert second["slot_mapping"] == [first["slot_mapping"][-1] + 1]
    assert second["seq_lens"] == [4]


def test_sequences_are_records_with_decodes_first() -> None:
    runner = FakeRunner()
    engine = _C.Engine(config(), runner)
    old = engine.submit(request([1, 2, 3], max_tokens=8))
    engine.step()
    new = engine.submit(request([50] * 20, max_tokens=1))
    engine.step()
    sequences = runner.plans[-1]["sequences"]
    assert sequences["request"].tolist() == [old, new]
    assert sequences["num_tokens"].tolist() == [1, 20]
    assert sequences["first_row"].tolist() == [0, 1]
    assert sequences["num_computed"].tolist() == [3, 0]
    assert sequences["is_prefill"].tolist() == [False, True]
    assert sequences["sample_row"].tolist() == [0, 1]
    assert runner.plans[-1]["block_tables"].shape[0] == 2


def test_media_are_planned_for_encoding_and_copied_once() -> None:
    runner = FakeRunner()
    engine = _C.Engine(config(multimodal=True, encoder_budget=16), runner)
    item = _C.MediaItem(_C.MediaKind.IMAGE, b"\x01" * 32, 1, 4, bytes([1, 1, 0, 1]))
    assert item.num_embeddings == 3
    first = engine.submit(request([1, 9, 9, 9, 9, 2], media=[item], max_tokens=1))
    run(engine)
    [(owner, index, slot, rows)] = runner.plans[0]["encode"]
    assert (owner, index, rows) == (first, 0, 3)
    copied = [(c[2], c[3], c[4], c[5]) for c in runner.plans[0]["embeddings"]]
    assert copied == [(slot, 0, 1, 2), (slot, 2, 4, 1)]
    # Other words around the same picture: its encoder output is still there.
    again = _C.MediaItem(_C.MediaKind.IMAGE, b"\x01" * 32, 0, 4, bytes([1, 1, 0, 1]))
    engine.submit(request([9, 9, 9, 9, 3], media=[again], max_tokens=1))
    run(engine)
    assert runner.plans[-1]["encode"] == []
    assert engine.metrics().items_encoded == 1
    assert engine.metrics().items_skipped == 1


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (lambda: request([]), ValidationError),
        (lambda: request([1, 100]), ValidationError),
        (lambda: request([1], temperature=-1.0), ValidationError),
        (lambda: request([1] * 256), ValidationError),
        (lambda: request([1] * 200), UnservableRequestError),
        (
            lambda: request([1, 2], media=[_C.MediaItem(_C.MediaKind.IMAGE, b"", 1, 4)]),
            PlaceholderMismatchError,
        ),
    ],
)
def test_refusals_are_named_and_leave_the_engine_working(made: Any, error: type) -> None:
    engine = _C.Engine(config(multimodal=True, num_blocks=10), FakeRunner())
    with pytest.raises(error) as caught:
        engine.submit(made())
    assert type(caught.value) is error
    engine.submit(request([1]))
    [outputs] = run(engine).values()
    assert tokens(outputs) == [2, 3, 4, 5]
    assert engine.metrics().requests_rejected == 1


def test_media_for_a_text_engine() -> None:
    engine = _C.Engine(config(), FakeRunner())
    with pytest.raises(MediaError):
        engine.submit(request([1, 2], media=[_C.MediaItem(_C.MediaKind.IMAGE, b"", 0, 1)]))


def test_a_full_queue_is_overload() -> None:
    engine = _C.Engine(config(max_queued_requests=1), FakeRunner())
    engine.submit(request([1]))
    with pytest.raises(EngineOverloadedError):
        engine.submit(request([1]))


def test_a_bad_configuration_is_refused() -> None:
    with pytest.raises(ValidationError, match="num_blocks"):
        _C.Engine(config(num_blocks=1), FakeRunner())


def test_unknown_requests_have_their_own_code() -> None:
    engine = _C.Engine(config(), FakeRunner())
    with pytest.raises(ValidationError) as caught:
        engine.abort(123)
    assert caught.value.code == "not_found"


def test_abort_and_finish_end_a_request() -> None:
    engine = _C.Engine(config(), FakeRunner())
    aborted = engine.submit(request([1], max_tokens=100))
    stopped = engine.submit(request([2], max_tokens=100))
    engine.step()
    engine.abort(aborted)
    engine.finish(stopped)
    outputs = run(engine)
    assert outputs[aborted][-1].finish_reason == _C.FinishReason.ABORTED
    assert outputs[stopped][-1].finish_reason == _C.FinishReason.STOP
    assert engine.metrics().blocks_used == 0
    assert engine.check_invariants() == []


def test_a_plan_is_closed_after_its_step() -> None:
    runner = FakeRunner()
    engine = _C.Engine(config(), runner)
    engine.submit(request([1]))
    run(engine)
    with pytest.raises(InternalError, match="only while its step runs"):
        _ = runner.plan.token_ids


def test_arrays_are_views_and_not_copies() -> None:
    seen = []

    def look(plan: Any) -> None:
        first, second = plan.token_ids, plan.token_ids
        seen.append((first.__array_interface__["data"], second.__array_interface__["data"]))
        assert first.base is not None

    engine = _C.Engine(config(), FakeRunner(look))
    engine.submit(request([1, 2]))
    run(engine)
    assert all(a == b for a, b in seen)


def test_history_of_a_sampled_row() -> None:
    histories = []

    def look(plan: Any) -> None:
        prompt, generated = plan.history(0)
        histories.append((prompt.tolist(), generated.tolist()))

    engine = _C.Engine(config(), FakeRunner(look))
    engine.submit(request([1, 2], max_tokens=3, repetition_penalty=1.5))
    run(engine)
    assert histories[-1] == ([1, 2], [3, 4])


# Failures.


def test_an_exception_fails_only_the_request_at_fault() -> None:
    def fail_on_13(plan: Any) -> None:
        if 13 in plan.token_ids:
            raise RuntimeError("cannot run 13 at 0x7f00 in /home/someone/model.py, line 3\nmore")

    engine = _C.Engine(config(), FakeRunner(fail_on_13))
    good = [engine.submit(request([i, i])) for i in (1, 2)]
    bad = engine.submit(request([13]))
    outputs = run(engine)
    assert [tokens(outputs[i]) for i in good] == [[2, 3, 4, 5], [3, 4, 5, 6]]
    error = outputs[bad][-1].error
    assert type(error) is InternalError
    assert str(error) == "RuntimeError: cannot run 13 at ... in ..., line 3"
    assert isinstance(error.__cause__, RuntimeError)
    assert engine.check_invariants() == []


def test_named_failures_keep_their_exception() -> None:
    refused = MediaError("no such picture", code="broken_png")

    def refuse(plan: Any) -> Any:
        ids = plan.sequences["request"].tolist()
        return [(ids[1], refused)] if len(ids) > 1 and ids[1] == 2 else None

    engine = _C.Engine(config(), FakeRunner(refuse))
    good, bad = engine.submit(request([1])), engine.submit(request([2]))
    outputs = run(engine)
    assert outputs[bad][-1].error is refused
    assert tokens(outputs[good]) == [2, 3, 4, 5]


def test_an_error_does_not_keep_the_tensors_of_its_frames() -> None:
    class Big:
        pass

    kept: list[weakref.ref[Big]] = []

    def fail(plan: Any) -> None:
        big = Big()
        kept.append(weakref.ref(big))
        raise RuntimeError("out of memory")

    engine = _C.Engine(config(), FakeRunner(fail))
    engine.submit(request([1]))
    [outputs] = run(engine).values()
    gc.collect()
    assert outputs[-1].error.__cause__.__traceback__ is not None
    assert all(ref() is None for ref in kept)


def test_an_interrupt_passes_through_step() -> None:
    def interrupt(plan: Any) -> None:
        raise KeyboardInterrupt

    engine = _C.Engine(config(), FakeRunner(interrupt))
    engine.submit(request([1]))
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    assert engine.check_invariants() == []


def test_the_engine_refuses_calls_from_inside_a_step() -> None:
    messages = []

    def reenter(plan: Any) -> None:
        with pytest.raises(InternalError) as caught:
            engine.submit(request([1]))
        messages.append(str(caught.value))

    engine = _C.Engine(config(), FakeRunner(reenter))
    engine.submit(request([1], max_tokens=1))
    run(engine)
    assert len(messages) == 1
    assert "one thread at a time" in messages[0]


def test_step_lets_other_threads_run() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(plan: Any) -> None:
        inside.set()
        assert go_on.wait(30)

    engine = _C.Engine(config(), FakeRunner(wait))
    engine.submit(request([1], max_tokens=1))
    thread = threading.Thread(target=engine.step)
    thread.start()
    assert inside.wait(30)
    with pytest.raises(InternalError, match="one thread"):
        engine.metrics()
    go_on.set()
    thread.join(30)
    assert not thread.is_alive()
    assert engine.metrics().steps == 1


def test_an_engine_and_its_runner_are_freed() -> None:
    runner = FakeRunner()
    engine = _C.Engine(config(), runner)
    engine.submit(request([1]))
    run(engine)
    ref = weakref.ref(runner)
    del runner, engine
    gc.collect()
    assert ref() is None


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("raised", "shown"),
    [
        (RuntimeError("plain"), "RuntimeError: plain"),
        (RuntimeError("first\nsecond"), "RuntimeError: first"),
        (KeyError("key"), "KeyError: 'key'"),
        (OSError("no file (/etc/passwd)"), "OSError: no file (...)"),
        (ValueError("<object at 0x7f3b30312330>"), "ValueError: <object at ...>"),
        (ValueError("a/b and /x stay"), "ValueError: a/b and /x stay"),
        (ValueError("x" * 500), "ValueError: " + "x" * 300),
        (ValueError(), "ValueError"),
        (ValueError("\udcff"), "ValueError: ?"),
        (Unspeakable(), "Unspeakable"),
    ],
)
def test_public_text(raised: Exception, shown: str) -> None:
    assert _C.public_text(raised) == shown
    if ": " in shown:
        assert _C.public_text(raised, with_class=False) == shown.partition(": ")[2]


# Mirrors.


def test_core_config_mirrors_the_core_field_for_field() -> None:
    core = _C.EngineConfig()
    names = {name for name in dir(core) if not name.startswith("_")}
    assert names == {field.name for field in fields(CoreConfig)}
    for field in fields(CoreConfig):
        default = field.default
        expected = list(default) if isinstance(default, tuple) else default
        assert getattr(core, field.name) == expected, field.name


def test_core_config_is_copied_into_the_core() -> None:
    mirror = CoreConfig(
        num_blocks=7, policy=1, eos_token_ids=(3, 4), multimodal=True, encoder_budget=9
    )
    core = mirror.to_core()
    for field in fields(CoreConfig):
        value = getattr(mirror, field.name)
        expected = list(value) if isinstance(value, tuple) else value
        assert getattr(core, field.name) == expected, field.name


def test_metrics_as_a_dictionary_has_every_field() -> None:
    metrics = _C.Engine(config(), FakeRunner()).metrics()
    names = {n for n in dir(metrics) if not n.startswith("_") and n != "as_dict"}
    assert metrics.as_dict().keys() == names
    assert metrics.as_dict()["blocks_total"] == 63
