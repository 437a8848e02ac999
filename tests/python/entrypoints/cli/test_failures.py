"""Unit: what a user gets wrong ends with one line that helps, status 2, and no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mmcore.entrypoints.cli import failures

Run = Callable


def refused(run: Run, *arguments: str) -> str:
    """Run a command that must be refused, and give its one line."""
    done = run(*arguments)
    assert done.status == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return str(done.stderr)


def checkpoint(folder: Path, **config: object) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("content", [b"just text\n", b"", b"\x89PNG\r\n\x1a\n"])
def test_what_is_named_like_an_image_but_is_none(run: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    line = refused(run, "generate", "-p", "What is it?", "-i", str(path))
    assert str(path) in line and "image" in line


def test_a_truncated_image(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    assert str(path) in refused(run, "generate", "-p", "What is it?", "-i", str(path))


def test_a_missing_image(run: Run, tmp_path: Path) -> None:
    line = refused(run, "generate", "-p", "What is it?", "-i", str(tmp_path / "none.png"))
    assert "none.png" in line and "no such file" in line


def test_a_folder_as_image(run: Run, tmp_path: Path) -> None:
    line = refused(run, "generate", "-p", "What is it?", "-i", str(tmp_path))
    assert "not a regular file" in line


def test_a_broken_data_url(run: Run) -> None:
    line = refused(run, "generate", "-p", "What is it?", "-i", "data:image/png;base64,#")
    assert "base64" in line


def test_a_private_address_is_not_fetched(run: Run) -> None:
    line = refused(run, "generate", "-p", "What is it?", "-i", "http://127.0.0.1/x.png")
    assert "--image http://127.0.0.1/x.png" in line


@pytest.mark.parametrize("command", [["generate", "-p", "Hi", "-m"], ["check"]])
class TestBadModels:
    def test_no_such_folder(self, run: Run, tmp_path: Path, command: list[str]) -> None:
        line = refused(run, *command, str(tmp_path / "none"))
        assert "does not exist" in line

    def test_no_config(self, run: Run, tmp_path: Path, command: list[str]) -> None:
        assert "config.json" in refused(run, *command, str(tmp_path))

    def test_config_is_no_json(self, run: Run, tmp_path: Path, command: list[str]) -> None:
        (tmp_path / "config.json").write_text("{", encoding="utf-8")
        assert str(tmp_path) in refused(run, *command, str(tmp_path))

    def test_unknown_architecture(self, run: Run, tmp_path: Path, command: list[str]) -> None:
        model = checkpoint(
            tmp_path / "m", model_type="llama", architectures=["LlavaForConditionalGeneratio"]
        )
        line = refused(run, *command, model)
        assert "nearest" in line and "LlavaForConditionalGeneration" in line

    def test_no_weights(self, run: Run, tmp_path: Path, command: list[str]) -> None:
        model = checkpoint(tmp_path / "m", model_type="llama", architectures=["LlamaForCausalLM"])
        line = refused(run, *command, model)
        assert "safetensors" in line or "tokenizer" in line

    def test_a_dtype_that_is_none(self, run: Run, tmp_path: Path, command: list[str]) -> None:
        model = checkpoint(tmp_path / "m", model_type="llama", architectures=["LlamaForCausalLM"])
        assert "float8" in refused(run, *command, model, "--dtype", "float8")


def test_an_image_for_a_text_model(run: Run, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "m", model_type="llama", architectures=["LlamaForCausalLM"])
    picture = tmp_path / "p.png"
    Image.new("RGB", (8, 8)).save(picture)
    line = refused(run, "generate", "-p", "What?", "-m", model, "-i", str(picture))
    assert "text only" in line


@pytest.mark.parametrize(
    ("option", "value"),
    [("--top-p", "3"), ("--top-k", "0"), ("--temperature", "-1"), ("--max-tokens", "0")],
)
def test_a_sampling_value_out_of_range(run: Run, option: str, value: str) -> None:
    assert option.lstrip("-").replace("-", "_") in refused(
        run, "generate", "-p", "Hi", option, value
    )


def test_options_that_do_not_exist_are_usage_errors(run: Run) -> None:
    done = run("generate", "--nonsense")
    assert done.status == 2
    assert "--nonsense" in done.stderr


def test_an_error_of_ours_is_called_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmcore.entrypoints.cli import info

    def broken() -> dict[str, object]:
        raise RuntimeError("a fault")

    monkeypatch.setattr(info, "machine_facts", broken)
    done = run("info")
    assert done.status == failures.INTERNAL_ERROR
    assert done.stderr.startswith("internal error: RuntimeError: a fault")
    assert "Traceback" not in done.stderr
    assert "in broken" in run("--traceback", "info").stderr
