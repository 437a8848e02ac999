"""The orientation that EXIF data give a picture; nothing else of them is read."""

from __future__ import annotations

import struct

__all__ = ["orientation_of"]

_PREFIX = b"Exif\x00\x00"
_ORIENTATION_TAG = 0x0112
_SHORT = 3


def orientation_of(exif: bytes) -> int:
    """Give the orientation, 1 to 8; 1 where there is none or the data make no sense.

    EXIF is written by anything and is no reason to refuse a picture, so nothing is raised. Only
    the first directory is walked, once, whatever it points to.
    """
    tiff = exif.removeprefix(_PREFIX)
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(entries):
            tag, kind, count, value = struct.unpack_from(
                order + "HHIH", tiff, directory + 2 + 12 * entry
            )
            if tag == _ORIENTATION_TAG:
                return value if kind == _SHORT and count == 1 and 1 <= value <= 8 else 1
    except struct.error:  # it points outside of itself
        return 1
    return 1
