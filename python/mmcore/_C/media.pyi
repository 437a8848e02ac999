# Written by scripts/generate_stubs.py; do not edit.
"""
Identities of media items.
"""

from __future__ import annotations
import collections.abc

__all__: list[str] = ["content_id"]

def content_id(frames: collections.abc.Sequence) -> bytes:
    """
    Hash length-framed pieces (str, bytes or contiguous buffers) into a 32-byte content id.
    """
