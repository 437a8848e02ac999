"""Whole program: `mmcore generate` and `mmcore demo` on the bundled checkpoint."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmcore.entrypoints.cli.bundled import PICTURE

COUNT = "How many circles are there?"


def answer(run: Callable, *arguments: str, stdin: str | None = None) -> dict[str, Any]:
    """Run with --json and parse the one object."""
    done = run("generate", "--json", *arguments, stdin=stdin)
    assert done.status == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def counted(run: Callable, two_circles: Path) -> dict[str, Any]:
    return answer(run, "-p", COUNT, "-i", str(two_circles))


def test_it_counts_what_was_drawn(counted: dict[str, Any]) -> None:
    assert counted["text"].strip().rstrip(".").lower() in ("2", "two")
    assert counted["finish_reason"] == "stop"


def test_the_document_is_consistent(counted: dict[str, Any]) -> None:
    usage, timings = counted["usage"], counted["timings"]
    assert usage["completion_tokens"] == len(counted["token_ids"]) > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < timings["time_to_first_token_s"] <= timings["total_s"]
    assert COUNT in counted["prompt"] and counted["prompt"] != COUNT  # the template is around it


def test_text_mode_prints_the_text_alone_on_stdout(
    run: Callable, two_circles: Path, counted: dict[str, Any]
) -> None:
    done = run("generate", "-p", COUNT, "-i", str(two_circles))
    assert done.status == 0
    assert done.stdout == counted["text"].strip() + "\n"
    assert "tokens" in done.stderr and "first token" in done.stderr


def test_a_prompt_from_standard_input_and_an_image_in_a_data_url(
    run: Callable, two_circles: Path, counted: dict[str, Any]
) -> None:
    url = "data:image/png;base64," + base64.b64encode(two_circles.read_bytes()).decode()
    again = answer(run, "-p", "-", "-i", url, stdin=COUNT)
    assert again["token_ids"] == counted["token_ids"]


def test_a_prompt_with_a_placeholder_is_taken_as_it_is(
    run: Callable, two_circles: Path, counted: dict[str, Any]
) -> None:
    written = f"USER: <image>\n{COUNT} ASSISTANT:"
    plain = answer(run, "-p", written, "-i", str(two_circles))
    forced = answer(run, "-p", written, "-i", str(two_circles), "--no-chat")
    assert plain["token_ids"] == forced["token_ids"] == counted["token_ids"]


def test_a_seed_repeats_a_draw(run: Callable, two_circles: Path) -> None:
    options = ("-p", "Describe the image.", "-i", str(two_circles), "--temperature", "1.5")
    draws = [answer(run, *options, "--seed", "7")["token_ids"] for _ in range(2)]
    assert draws[0] == draws[1]


def test_limits_and_stops(run: Callable, two_circles: Path) -> None:
    options = ("-p", "Describe the image.", "-i", str(two_circles))
    short = answer(run, *options, "--max-tokens", "3")
    assert (len(short["token_ids"]), short["finish_reason"]) == (3, "length")
    whole = answer(run, *options)
    word = whole["text"].split()[1]
    stopped = answer(run, *options, "--stop", word)
    assert stopped["stop_reason"] == word
    assert word not in stopped["text"] and whole["text"].startswith(stopped["text"])


def test_a_question_without_a_picture_is_served(run: Callable) -> None:
    assert answer(run, "-p", COUNT, "--max-tokens", "4")["usage"]["completion_tokens"] <= 4


def test_the_demo_says_what_it_saw_and_how_fast(run: Callable) -> None:
    done = run("demo")
    assert done.status == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["picture"] == str(PICTURE)
    assert lines["caption"].strip()
    assert "first token after" in lines["speed"] and "tokens/s" in done.stdout
