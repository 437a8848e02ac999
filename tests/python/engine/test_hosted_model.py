"""Unit: a model whose engine is a C++ program's. The engine itself: scripts/check_package.sh."""

from __future__ import annotations

from importlib.resources import files

import pytest

from mmcore.engine.hosted_model import HostedModel
from mmcore.errors import ValidationError

WHITE = (b"\xff" * (3 * 20 * 30), 20, 30)
PROMPT = "USER: <image>\nDescribe the image. ASSISTANT:"


@pytest.fixture(scope="module")
def model() -> HostedModel:
    return HostedModel(str(files("mmcore") / "assets" / "tiny_llava"), max_model_len=512)


def test_what_crosses_is_named_by_what_it_points_to(model: HostedModel) -> None:
    assert '"mmcore::EngineConfig"' in repr(model.config())
    assert '"std::shared_ptr<mmcore::ModelRunner>"' in repr(model.runner())
    for request in (model.request("Hello."), model.request(PROMPT, [WHITE])):
        assert '"mmcore::Request"' in repr(request)


def test_requests_that_cannot_be_served_raise(model: HostedModel) -> None:
    with pytest.raises(ValidationError):
        model.request(PROMPT, [WHITE, WHITE])
    with pytest.raises(ValueError, match="not enough image data"):
        model.request(PROMPT, [(b"", 20, 30)])


def test_tokens_become_text(model: HostedModel) -> None:
    assert model.decode([461, 410, 2]) == "From left"
