"""Unit: importing the front is cheap, and its public names exist."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

LIGHT = [
    "mmcore",
    "mmcore.config",
    "mmcore.errors",
    "mmcore.inputs",
    "mmcore.model_executor.models",
    "mmcore.multimodal",
    "mmcore.multimodal.utils",
    "mmcore.outputs",
    "mmcore.sampling_params",
    "mmcore.sequence",
]


def test_the_front_imports_nothing_heavy() -> None:
    program = (
        "import sys, importlib\n"
        f"for name in {LIGHT}: importlib.import_module(name)\n"
        "heavy = {'torch', 'transformers', 'PIL', 'numpy', 'mmcore._C'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module",
    [
        *(name for name in LIGHT if name != "mmcore"),
        "mmcore.hf_config",
        "mmcore.inputs.data",
        "mmcore.inputs.parse",
        "mmcore.inputs.preprocess",
        "mmcore.inputs.registry",
        "mmcore.model_executor.models.interfaces",
        "mmcore.model_executor.models.registry",
        "mmcore.multimodal.base",
        "mmcore.multimodal.decode",
        "mmcore.multimodal.fetch",
        "mmcore.multimodal.hf_processor",
        "mmcore.multimodal.items",
        "mmcore.multimodal.placeholders",
        "mmcore.multimodal.registry",
    ],
)
def test_public_names_exist(module: str) -> None:
    loaded = importlib.import_module(module)
    missing = [name for name in getattr(loaded, "__all__", ()) if not hasattr(loaded, name)]
    assert missing == []
