"""Decoding sounds: WAV by the standard library, everything else by soundfile where installed."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmcore.errors import MediaError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["AudioLimits", "decode_audio"]


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """What a sound may cost.

    Parameters
    ----------
    max_bytes
        Size of the file.
    max_samples
        Samples over all channels, from the file's header; ten minutes of 48 kHz stereo.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_samples: int = 600 * 48_000 * 2

    def check(self, num_samples: int) -> None:
        """Refuse a sound that is too long.

        Raises
        ------
        MediaError
            ``audio_too_long``.
        """
        if num_samples > self.max_samples:
            raise MediaError(
                f"The audio has {num_samples} samples; at most {self.max_samples} are allowed.",
                code="audio_too_long",
            )


_DEFAULT_LIMITS = AudioLimits()


def decode_audio(
    data: bytes, limits: AudioLimits = _DEFAULT_LIMITS
) -> tuple[npt.NDArray[np.float32], int]:
    """Decode a file to one channel of samples in [-1, 1] at the file's own sampling rate.

    Raises
    ------
    MediaError
        If the data are no sound, a broken one, or beyond a limit.
    ImportError
        If it is not PCM WAV and soundfile is not installed.
    """
    if len(data) > limits.max_bytes:
        raise MediaError(
            f"The audio file has {len(data)} bytes; at most {limits.max_bytes} are allowed.",
            code="audio_too_large",
        )
    if not data:
        raise MediaError("The audio is empty.", code="invalid_audio")
    try:
        import soundfile
    except ImportError:
        soundfile = None
    try:
        if soundfile is not None:
            return _decode_soundfile(soundfile, data, limits)
        if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
            return _decode_wav(data, limits)
    except (MediaError, MemoryError):
        raise
    except Exception:  # decoders raise what they like on malformed input
        raise MediaError(
            "The audio cannot be decoded; it is damaged or of an unknown format.",
            code="invalid_audio",
        ) from None
    raise ImportError("Please install mmcore[audio] for audio support.")


def _decode_soundfile(
    soundfile: Any, data: bytes, limits: AudioLimits
) -> tuple[npt.NDArray[np.float32], int]:
    info = soundfile.info(io.BytesIO(data))
    limits.check(info.frames * info.channels)
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return samples.mean(axis=1), int(rate)


def _decode_wav(data: bytes, limits: AudioLimits) -> tuple[npt.NDArray[np.float32], int]:
    import numpy as np

    with wave.open(io.BytesIO(data), "rb") as file:
        channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
        frames = file.getnframes()
        limits.check(frames * channels)
        raw = np.frombuffer(file.readframes(frames), dtype=np.uint8)
    if len(raw) != frames * channels * width:
        raise MediaError("The audio is cut off; send the whole file.", code="invalid_audio")
    raw = raw.reshape(-1, width)
    if width == 1:  # 8-bit WAV is unsigned
        values = raw[:, 0].astype(np.float32) / 128.0 - 1.0
    else:
        # Little-endian samples, moved to the upper bytes of 32 bits so that the sign is right.
        wide = np.zeros((len(raw), 4), dtype=np.uint8)
        wide[:, 4 - width :] = raw
        values = wide.view("<i4")[:, 0].astype(np.float32) / 2.0**31
    return values.reshape(-1, channels).mean(axis=1, dtype=np.float32), rate
