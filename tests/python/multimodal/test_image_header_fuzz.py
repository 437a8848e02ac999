"""Random mutations of whole image files: each is refused by name or decoded, nothing else."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image

from mmcore.errors import MediaError
from mmcore.multimodal.decode import decode_image
from mmcore.multimodal.image_header import FORMATS, read_header

SEED = 11
MUTATIONS = 1000
LONGEST = 20_000


def encoded(name: str) -> bytes:
    picture = Image.effect_noise((23, 17), 60).convert("RGB")
    file = io.BytesIO()
    picture.save(file, format=name)
    return file.getvalue()


def mutated(data: bytes, other: bytes, draw: random.Random) -> bytes:
    file = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        # Most of what matters stands near the beginning.
        at = draw.randrange(min(len(file), draw.choice((16, 64, len(file)))))
        kind = draw.randrange(6)
        if kind == 0:
            file[at] = draw.randrange(256)
        elif kind == 1:
            file[at] ^= 1 << draw.randrange(8)
        elif kind == 2:
            file[at : at + 4] = draw.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80"))
        elif kind == 3:
            del file[at : at + draw.randint(1, 8)]
        elif kind == 4:
            file[at:at] = other[draw.randrange(len(other)) :][: draw.randint(1, 40)]
        else:
            del file[at + 1 :]
        if not file:
            return b"\x00"
    return bytes(file[:LONGEST])


@pytest.mark.parametrize("name", FORMATS)
def test_a_mutated_file_is_read_or_refused(name: str) -> None:
    draw = random.Random(f"{SEED} {name}")
    files = {other: encoded(other) for other in FORMATS}
    refused = 0
    for number in range(MUTATIONS):
        file = mutated(files[name], files[draw.choice(FORMATS)], draw)
        try:
            header = read_header(file)
            decode_image(file)  # what the header reader lets through
        except MediaError as error:
            refused += 1
            assert error.code
        except Exception as error:
            pytest.fail(f"seed {SEED}, {name}, mutation {number}: {error!r} for {file.hex()}")
        else:
            assert header.format in FORMATS
            assert header.width > 0
            assert header.height > 0
    assert refused > 0


@pytest.mark.parametrize("name", FORMATS)
def test_every_cut_is_refused(name: str) -> None:
    whole = encoded(name)
    assert (read_header(whole).width, read_header(whole).height) == (23, 17)
    for length in range(len(whole) - 2):
        with pytest.raises(MediaError):
            read_header(whole[:length])
