"""Unit: both dialects of config.json, and a torchvision that does not load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlavaConfig, PretrainedConfig

from mmcore.errors import CheckpointError, ValidationError
from mmcore.hf_config import (
    checkpoint_dtype_name,
    derive_max_model_len,
    load_hf_config,
    rope_parameters,
    text_config_of,
)

Load = Callable[..., Any]


@pytest.fixture
def load(text_checkpoint: str, tmp_path: Path) -> Load:
    """Load the checkpoint's configuration with keys changed; None removes one."""
    base = json.loads((Path(text_checkpoint) / "config.json").read_text())

    def load_changed(**changes: Any) -> Any:
        merged = {k: v for k, v in {**base, **changes}.items() if v is not None}
        (tmp_path / "config.json").write_text(json.dumps(merged))
        return load_hf_config(str(tmp_path))

    return load_changed


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_dtype_in_either_dialect(load: Load, key: str) -> None:
    assert checkpoint_dtype_name(load(**{"torch_dtype": None, key: "bfloat16"})) == "bfloat16"


def test_dtype_of_the_language_model_alone() -> None:
    assert checkpoint_dtype_name(LlavaConfig()) is None
    config = LlavaConfig(text_config=LlamaConfig(dtype="float16"))
    assert checkpoint_dtype_name(config) == "float16"


@pytest.mark.parametrize(
    "written",
    [
        {"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_theta": 5000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {
            "rope_theta": None,
            "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0},
        },
    ],
)
def test_rope_in_either_dialect(load: Load, written: dict[str, Any]) -> None:
    rope = rope_parameters(load(**written))
    assert (rope["rope_type"], rope["rope_theta"], rope["factor"]) == ("linear", 5000.0, 2.0)


def test_rope_without_scaling(load: Load) -> None:
    rope = rope_parameters(load())
    assert (rope["rope_type"], rope["rope_theta"]) == ("default", 10000.0)


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        (None, 2048),
        ({"rope_type": "linear", "factor": 2.0}, 4096),
        ({"rope_type": "dynamic", "factor": 1.5}, 3072),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
            4096,
        ),
        (
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 512,
            },
            2048,
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_length_with_rope_scaling(
    load: Load, scaling: dict[str, Any] | None, expected: int
) -> None:
    config = load(rope_scaling=scaling)
    assert derive_max_model_len(config, None) == expected
    assert derive_max_model_len(config, expected) == expected
    with pytest.raises(ValidationError, match=f"at most {expected}"):
        derive_max_model_len(config, expected + 1)


def test_length_of_a_config_that_does_not_say(caplog: pytest.LogCaptureFixture) -> None:
    config = PretrainedConfig()
    assert derive_max_model_len(config, 77) == 77
    assert derive_max_model_len(config, None) == 2048
    assert "assuming a max_model_len of 2048" in caplog.text


def test_text_config(vision_checkpoint: str) -> None:
    assert text_config_of(load_hf_config(vision_checkpoint)).model_type == "llama"


def test_unknown_family(load: Load) -> None:
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(model_type="no_such_family")


BROKEN_TORCHVISION = """
raise RuntimeError("operator torchvision::nms does not exist")
"""

PROGRAM = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s")
{first}
from mmcore.hf_config import prepare_transformers
from mmcore.multimodal.hf_processor import get_image_processor
processor = get_image_processor(sys.argv[1])
get_image_processor(sys.argv[1])
print(type(processor).__name__)
from transformers import LlamaConfig
"""


@pytest.mark.parametrize("first", ["", "import transformers"])
def test_a_torchvision_that_does_not_load_is_set_aside(
    tmp_path: Path, vision_checkpoint: str, first: str
) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(BROKEN_TORCHVISION)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first), vision_checkpoint],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"},
    )
    assert done.returncode == 0, done.stderr
    assert "CLIPImageProcessorPil" in done.stdout
    assert done.stdout.count("torchvision is installed but cannot be imported") == 1
    assert "torchvision::nms does not exist" in done.stdout
