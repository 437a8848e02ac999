"""Writing images and sounds as base64, the way they travel in requests."""

from __future__ import annotations

import base64
import io
import wave
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

__all__ = ["encode_audio_base64", "encode_image_base64"]


def encode_image_base64(
    image: Image.Image, *, image_mode: str = "RGB", format: str = "JPEG"
) -> str:
    """Encode an image as a file in base64.

    Parameters
    ----------
    image_mode
        Mode to convert to first.
    format
        Any container that Pillow writes; JPEG loses detail, PNG does not.
    """
    buffer = io.BytesIO()
    image.convert(image_mode).save(buffer, format)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def encode_audio_base64(audio: npt.NDArray[np.floating], sampling_rate: int) -> str:
    """Encode samples in [-1, 1] as a 16-bit WAV file in base64.

    Parameters
    ----------
    audio
        Shape (samples,) or (samples, channels).
    """
    import numpy as np

    samples = np.atleast_2d(np.asarray(audio, dtype=np.float64).T).T
    pcm = np.round(samples.clip(-1.0, 1.0) * 32767.0).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(pcm.shape[1])
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(pcm.tobytes())
    return base64.b64encode(buffer.getvalue()).decode("ascii")
