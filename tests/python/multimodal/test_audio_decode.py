"""Unit: decoding WAV without extras, limits, and files that are no sound."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np
import pytest

from mmcore.errors import MediaError
from mmcore.multimodal.audio_decode import AudioLimits, decode_audio

try:
    import soundfile
except ImportError:
    soundfile = None


def wav(samples: bytes, *, width: int = 2, channels: int = 1, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("width", "samples"),
    [
        (1, bytes([0, 64, 128, 192])),
        (2, struct.pack("<4h", -32768, -16384, 0, 16384)),
        (3, b"\0\0\x80" + b"\0\0\xc0" + b"\0\0\0" + b"\0\0\x40"),
        (4, struct.pack("<4i", -(2**31), -(2**30), 0, 2**30)),
    ],
)
def test_sample_widths(width: int, samples: bytes) -> None:
    decoded, rate = decode_audio(wav(samples, width=width, rate=44_100))
    assert decoded.dtype == np.float32
    assert decoded.tolist() == [-1.0, -0.5, 0.0, 0.5]
    assert rate == 44_100


def test_channels_are_averaged() -> None:
    samples = struct.pack("<4h", 16384, -16384, 8192, 24576)
    decoded, _ = decode_audio(wav(samples, channels=2))
    assert decoded.tolist() == [0.0, 0.5]


def test_limits() -> None:
    data = wav(b"\0" * 20, channels=2)
    assert len(decode_audio(data, AudioLimits(max_samples=10))[0]) == 5
    with pytest.raises(MediaError) as too_long:
        decode_audio(data, AudioLimits(max_samples=9))
    assert too_long.value.code == "audio_too_long"
    with pytest.raises(MediaError) as too_large:
        decode_audio(data, AudioLimits(max_bytes=len(data) - 1))
    assert too_large.value.code == "audio_too_large"


def test_empty_file() -> None:
    with pytest.raises(MediaError) as caught:
        decode_audio(b"")
    assert caught.value.code == "invalid_audio"


@pytest.mark.parametrize("length", range(12, 52))
def test_files_that_are_cut_off(length: int) -> None:
    data = wav(b"\0\0" * 4)
    assert len(data) == 52
    with pytest.raises(MediaError) as caught:
        decode_audio(data[:length])
    assert caught.value.code == "invalid_audio"


def test_other_formats_need_the_extra() -> None:
    if soundfile is not None:
        with pytest.raises(MediaError):
            decode_audio(b"OggS" + b"\0" * 40)
        return
    with pytest.raises(ImportError) as caught:
        decode_audio(b"OggS" + b"\0" * 40)
    assert str(caught.value) == "Please install mmcore[audio] for audio support."


@pytest.mark.skipif(soundfile is None, reason="needs soundfile (mmcore[audio])")
def test_flac_comes_back_exactly() -> None:
    samples = np.round(np.linspace(-1, 1, 100) * 2**14) / 2**15
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 22_050, format="FLAC", subtype="PCM_16")
    decoded, rate = decode_audio(buffer.getvalue())
    assert rate == 22_050
    assert np.array_equal(decoded, samples.astype(np.float32))
