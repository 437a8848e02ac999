"""Unit: file URLs below one folder, and the ways out of it."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

from mmcore.errors import MediaFetchError
from mmcore.multimodal.local_file import read_local_file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"inside")
    (folder / "sub" / "b c%.png").write_bytes(b"deeper")
    (folder / "..name").write_bytes(b"dots")
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "media2").mkdir()
    (tmp_path / "media2" / "a.png").write_bytes(b"outside")
    return folder


def refusal(url: str, root: Path | None, max_bytes: int = 100) -> MediaFetchError:
    with pytest.raises(MediaFetchError) as caught:
        read_local_file(url, root, max_bytes)
    assert "/" not in str(caught.value).replace("file:///", "")
    return caught.value


def test_files_below_the_folder(root: Path) -> None:
    assert read_local_file(f"file://{root}/a.png", root, 6) == b"inside"
    assert read_local_file(f"FILE://{root}/sub/b%20c%25.png", str(root), 100) == b"deeper"
    assert read_local_file(f"file://{root}/..name", root, 100) == b"dots"


def test_not_allowed_at_all(root: Path) -> None:
    error = refusal(f"file://{root}/a.png", None)
    assert str(error) == "Cannot load local files without'--allowed-local-media-path'."
    assert error.code == "media_url_blocked"


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/proc/self/environ", "/dev/zero", "{root}2/a.png", "{parent}/secret", "/"],
)
def test_files_elsewhere(root: Path, path: str) -> None:
    error = refusal("file://" + path.format(root=root, parent=root.parent), root)
    assert error.code == "media_url_blocked"


def test_text_for_files_elsewhere(root: Path) -> None:
    error = refusal("file:///etc/passwd", root)
    assert "must be a subpath of `--allowed-local-media-path`" in str(error)


@pytest.mark.parametrize(
    "tail",
    ["/../secret", "/sub/../../secret", "/./a.png", "//a.png", "/%2e%2e/secret", "/..%2fsecret",
     "/a.png/", "/a.png%00.jpg", "/sub//../a.png", "/"],
)  # fmt: skip
def test_paths_that_are_not_plain(root: Path, tail: str) -> None:
    assert refusal(f"file://{root}{tail}", root).code == "media_url_blocked"


@pytest.mark.parametrize("prefix", ["file://localhost", "file://host", "file:", "file:/"])
def test_urls_with_a_host_or_without_slashes(root: Path, prefix: str) -> None:
    assert refusal(f"{prefix}{root}/a.png", root).code == "media_url_blocked"


def test_links_are_not_followed(root: Path) -> None:
    (root / "file_link").symlink_to(root.parent / "secret")
    (root / "inner_link").symlink_to(root / "a.png")
    (root / "folder_link").symlink_to(root.parent / "media2")
    for name in ("file_link", "inner_link", "folder_link/a.png"):
        assert refusal(f"file://{root}/{name}", root).code == "media_fetch_failed"


def test_the_folder_itself_may_be_reached_by_a_link(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    assert read_local_file(f"file://{link}/a.png", link, 100) == b"inside"
    assert read_local_file(f"file://{root}/a.png", link, 100) == b"inside"


def test_a_link_that_is_swapped_in_meanwhile(root: Path) -> None:
    target = root / "swapped"
    stop = threading.Event()

    def swap() -> None:
        plain, link = root / "plain", root / "link"
        while not stop.is_set():
            plain.write_bytes(b"inside")
            os.replace(plain, target)
            link.symlink_to(root.parent / "secret")
            os.replace(link, target)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = set()
        for _ in range(500):
            try:
                seen.add(read_local_file(f"file://{root}/swapped", root, 100))
            except MediaFetchError as error:
                assert error.code == "media_fetch_failed"
    finally:
        stop.set()
        thread.join()
    assert b"outside" not in seen


def test_what_is_no_regular_file(root: Path) -> None:
    os.mkfifo(root / "pipe")
    assert refusal(f"file://{root}/pipe", root).code == "media_url_blocked"
    assert refusal(f"file://{root}/sub", root).code == "media_url_blocked"
    assert refusal(f"file://{root}/missing", root).code == "media_fetch_failed"
    assert refusal(f"file://{root}/a.png/b", root).code == "media_fetch_failed"


def test_size(root: Path) -> None:
    assert refusal(f"file://{root}/a.png", root, 5).code == "media_too_large"


def test_no_file_stays_open(root: Path) -> None:
    os.mkfifo(root / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a.png", "pipe", "missing", "sub", "sub/missing", "a.png/b"):
        with contextlib.suppress(MediaFetchError):
            read_local_file(f"file://{root}/{name}", root, 100)
    assert len(os.listdir("/proc/self/fd")) == before


def test_names_that_are_no_text(root: Path) -> None:
    (root / os.fsdecode(b"\xff\xfe")).write_bytes(b"bytes")
    assert read_local_file(f"file://{root}/%ff%fe", root, 100) == b"bytes"
    assert refusal(f"file://{root}/\ud800", root).code == "media_fetch_failed"
