"""Reading a ``file://`` URL below one folder, and nothing outside it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from urllib.parse import unquote

from mmcore.errors import MediaFetchError
from mmcore.multimodal.address import blocked
from mmcore.multimodal.http_fetch import failed, too_large

__all__ = ["read_local_file"]

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def read_local_file(url: str, root: str | os.PathLike[str] | None, max_bytes: int) -> bytes:
    """Read a regular file.

    The path is walked one component at a time from an open folder, and no component may be a
    symbolic link: what is checked is what is opened, whatever is renamed meanwhile.

    Parameters
    ----------
    url
        ``file:///`` and an absolute path.
    root
        The only folder to read below; None if local files are not allowed.

    Raises
    ------
    MediaFetchError
        If it is not allowed, or cannot be read. The text does not repeat the path.
    """
    if not root:
        raise MediaFetchError(
            "Cannot load local files without'--allowed-local-media-path'.",
            code="media_url_blocked",
        )
    prefix = "file://"
    if url[: len(prefix)].lower() != prefix or url[len(prefix) : len(prefix) + 1] != "/":
        raise blocked("a file URL must be file:/// and an absolute path, without a host.")
    path = unquote(url[len(prefix) :], errors="surrogateescape")  # as os.fsdecode
    parts = path.split("/")[1:]
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise blocked("the path of a file URL must be plain, without '.', '..' or empty parts.")

    inside = _below(parts, Path(root))
    if not inside:
        raise blocked("The file path must be a subpath of `--allowed-local-media-path`.")
    try:
        return _read_below(Path(root).resolve(), inside, max_bytes)
    except (OSError, UnicodeError):
        raise failed("there is no such file below the allowed folder.") from None


def _below(parts: list[str], root: Path) -> list[str]:
    """Give the components after the root's, empty if the path is not below it."""
    for base in (Path(os.path.abspath(root)), root.resolve()):
        base_parts = list(base.parts[1:])
        if parts[: len(base_parts)] == base_parts:
            return parts[len(base_parts) :]
    return []


def _read_below(root: Path, parts: list[str], max_bytes: int) -> bytes:
    handle = os.open(root, _FLAGS | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            below = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = below
        # Non-blocking, so that opening a named pipe does not wait for its writer.
        file = os.open(parts[-1], _FLAGS | os.O_NONBLOCK, dir_fd=handle)
        os.close(handle)
        handle = file
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise blocked("it does not name a regular file.")
        data = bytearray()
        while chunk := os.read(handle, min(1 << 20, max_bytes + 1 - len(data))):
            data += chunk
            if len(data) > max_bytes:
                raise too_large(max_bytes)
        return bytes(data)
    finally:
        os.close(handle)
