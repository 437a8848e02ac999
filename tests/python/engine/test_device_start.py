"""CUDA is set up beside the imports, and only for a GPU. Layer: unit."""

from __future__ import annotations

import pytest

from mmcore import _C
from mmcore.engine import device_start
from mmcore.engine.device_start import start_device


@pytest.mark.parametrize("device", ["cpu", "tpu", "cuda:x"])
def test_nothing_starts_for_a_cpu_or_a_name_that_will_be_refused(device: str) -> None:
    assert start_device(device) is None


def test_a_device_that_fails_is_told_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device_start, "DeviceConfig", lambda device: _Gpu)
    thread = start_device("cuda:4095")
    assert thread is not None
    with caplog.at_level("DEBUG", logger="mmcore"):
        thread.join()
    assert not thread.is_alive()


class _Gpu:
    device = "cuda:4095"
    device_type = "cuda"


def test_auto_starts_what_it_will_take() -> None:
    import torch

    thread = start_device("auto")
    assert (thread is not None) == (_C.with_cuda and torch.cuda.is_available())
    if thread is not None:
        thread.join()
        assert torch.cuda.is_initialized()
