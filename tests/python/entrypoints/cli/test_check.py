"""Whole program: `mmcore check` on the bundled checkpoint and on damaged copies of it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from mmcore.entrypoints.cli.bundled import MODEL


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


def test_the_bundled_checkpoint(run: Callable) -> None:
    done = run("check", str(MODEL), "--json")
    assert done.status == 0, done.stderr
    report = json.loads(done.stdout)
    with safe_open(MODEL / "model.safetensors", framework="pt") as file:
        names = list(file.keys())
        parameters = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    assert report["architecture"] == "LlavaForConditionalGeneration"
    assert (report["tensors"], report["parameters"]) == (len(names), parameters)
    assert report["level"] == "extended"
    assert report["tokens_per_item"]["image"] > 0
    assert report["chat_template"] is True
    assert report["processor"] is not None
    assert len(report["memory_plan"]) == 2
    assert report["problems"] == []


def test_options_change_what_would_run(run: Callable) -> None:
    arguments = ("check", str(MODEL), "--json", "--dtype", "bfloat16", "--max-model-len", "256")
    report = json.loads(run(*arguments).stdout)
    assert (report["dtype"], report["max_model_len"]) == ("bfloat16", 256)


def test_the_table_names_the_same_things(run: Callable) -> None:
    done = run("check", str(MODEL))
    assert done.status == 0
    assert "LlavaForConditionalGeneration" in done.stdout
    assert "image" in done.stdout and "memory" in done.stdout


def test_more_context_than_the_model_has(run: Callable) -> None:
    done = run("check", str(MODEL), "--max-model-len", "9999999")
    assert done.status == 2
    assert "max_model_len" in done.stderr


def test_a_cut_off_weight_file(run: Callable, copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    done = run("check", str(copy))
    assert done.status == 2
    assert "model.safetensors" in done.stderr and done.stderr.count("\n") == 1


def test_missing_parts_are_told_together_with_the_rest(run: Callable, copy: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (copy / name).unlink(missing_ok=True)
    for name in ("processor_config.json",):
        (copy / name).unlink(missing_ok=True)
    done = run("check", str(copy))
    assert done.status == 2
    assert "LlavaForConditionalGeneration" in done.stdout
    assert "problem: " in done.stderr and "tokenizer" in done.stderr
