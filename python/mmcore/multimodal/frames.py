"""Resizing images and videos, and choosing frames of a video."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

__all__ = ["rescale_image_size", "rescale_video_size", "resize_video", "sample_frames_from_video"]


def rescale_image_size(image: Image.Image, size_factor: float, transpose: int = -1) -> Image.Image:
    """Scale both sides of an image.

    Parameters
    ----------
    transpose
        A ``PIL.Image.Transpose`` to apply afterwards; -1 for none.
    """
    from PIL import Image

    image = image.resize((int(image.width * size_factor), int(image.height * size_factor)))
    return image.transpose(Image.Transpose(transpose)) if transpose >= 0 else image


def resize_video(frames: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize every frame, bilinearly.

    Parameters
    ----------
    frames
        Shape (frames, height, width, channels).
    size
        New (height, width).
    """
    import numpy as np
    from PIL import Image

    height, width = size
    resized = np.empty((len(frames), height, width, frames.shape[3]), dtype=frames.dtype)
    for i, frame in enumerate(frames):
        image = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
        resized[i] = np.asarray(image)
    return resized


def rescale_video_size(frames: npt.NDArray[np.uint8], size_factor: float) -> npt.NDArray[np.uint8]:
    """Scale both sides of every frame."""
    _, height, width, _ = frames.shape
    return resize_video(frames, (int(height * size_factor), int(width * size_factor)))


def sample_frames_from_video(
    frames: npt.NDArray[np.uint8], num_frames: int
) -> npt.NDArray[np.uint8]:
    """Choose frames evenly over a video, the first and the last among them; -1 for all."""
    import numpy as np

    if num_frames == -1:
        return frames
    indices = np.linspace(0, len(frames) - 1, num_frames, dtype=int)
    return frames[indices]
