"""Hugging Face image processors run up to their last byte, with the rest of them as a table.

Those that are known here resize and crop 8-bit pixels, and then rescale and normalise. The table of
the second part is what the processor's own methods make of the 256 bytes. Its own functions say
how large the first part's result is and how it is cropped; only detours over arrays and tensors are
left out. Before a processor is trusted, both ways are compared on drawn pictures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from mmcore.multimodal.byte_pixels import BytePixels

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from PIL import Image

__all__ = ["byte_features"]

logger = logging.getLogger(__name__)

_PILLOW = {
    ("transformers.models.clip.image_processing_pil_clip", "CLIPImageProcessorPil"),
    ("transformers.models.siglip.image_processing_pil_siglip", "SiglipImageProcessorPil"),
    ("transformers.models.llava.image_processing_pil_llava", "LlavaImageProcessorPil"),
}
_TORCHVISION = {
    ("transformers.models.clip.image_processing_clip", "CLIPImageProcessor"),
    ("transformers.models.siglip.image_processing_siglip", "SiglipImageProcessor"),
    ("transformers.models.llava.image_processing_llava", "LlavaImageProcessor"),
}
_TILES = {
    (
        "transformers.models.llava_next.image_processing_pil_llava_next",
        "LlavaNextImageProcessorPil",
    ),
    ("transformers.models.llava_next.image_processing_llava_next", "LlavaNextImageProcessor"),
}
_KNOWN = _PILLOW | _TORCHVISION | _TILES
_STAGES = (
    "__call__", "preprocess", "_preprocess", "resize", "center_crop", "rescale", "normalize",
    "rescale_and_normalize",
)  # fmt: skip

_Features = dict[str, Any]
_Run = Callable[[Sequence["Image.Image"]], "_Features | None"]
_known: WeakKeyDictionary[Any, _Run | None] = WeakKeyDictionary()


def byte_features(processor: Any, images: Sequence[Image.Image]) -> _Features | None:
    """Give what a processor makes of RGB images, ``pixel_values`` as :class:`BytePixels`.

    Parameters
    ----------
    processor
        An image processor of transformers, whose options are not changed any more.

    Returns
    -------
    dict or None
        None if the processor, or these images, are not of a kind that this is known to be exact
        for.
    """
    if _kind(processor) not in _KNOWN:
        return None
    if processor not in _known:
        _known[processor] = _runner_of(processor)
    run = _known[processor]
    return None if run is None else run(images)


def _kind(processor: Any) -> tuple[str, str]:
    return type(processor).__module__, type(processor).__qualname__


def _runner_of(processor: Any) -> _Run | None:
    if any(name in vars(processor) for name in _STAGES):
        return None
    kind = _kind(processor)
    try:
        table = _table(processor)
        run: _Run
        if kind in _TILES:
            run = _Tiles(processor, table)
        else:
            run = (_Pillow if kind in _PILLOW else _Torchvision)(processor, table)
        same = _agrees(processor, run)
    except Exception:  # options that the processor itself refuses, or another version of it
        logger.debug("%s is run as it is", kind[1], exc_info=True)
        return None
    if not same:
        logger.warning(
            "%s of this version of transformers is run as it is: keeping its pixels as bytes would "
            "change them. Encoding works as before, but takes more time and memory.",
            kind[1],
        )
    return run if same else None


def _table(processor: Any) -> torch.Tensor:
    """Let the processor rescale and normalise each byte, in each channel."""
    import numpy as np
    import torch

    ramp = np.tile(np.arange(256, dtype=np.uint8), (3, 1, 1))
    if hasattr(processor, "rescale_and_normalize"):
        pixels = processor.rescale_and_normalize(
            torch.from_numpy(ramp)[None],
            processor.do_rescale,
            processor.rescale_factor,
            processor.do_normalize,
            processor.image_mean,
            processor.image_std,
        )[0]
    else:
        array: Any = ramp
        if processor.do_rescale:
            array = processor.rescale(array, processor.rescale_factor)
        if processor.do_normalize:
            array = processor.normalize(array, processor.image_mean, processor.image_std)
        pixels = torch.from_numpy(np.ascontiguousarray(array))
    if pixels.dtype != torch.float32:
        raise ValueError(f"the processor gives {pixels.dtype}")
    table: torch.Tensor = pixels[:, 0].contiguous()
    return table


def _agrees(processor: Any, run: _Run) -> bool:
    """Compare both ways on pictures that are larger, smaller, of the right size, and not square."""
    import numpy as np
    import torch
    from PIL import Image

    random = np.random.default_rng(0)
    sizes = [(61, 47), (480, 640)]
    for height, width in sizes:  # which grows once
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        expected = processor([image], return_tensors="pt").data
        if len(sizes) == 2:
            sizes.append(tuple(expected["pixel_values"].shape[-2:]))
        got = run([image])
        if got is None or got.keys() != expected.keys():
            return False
        for name, value in got.items():
            tensor = value.floats() if isinstance(value, BytePixels) else value
            if tensor.dtype != expected[name].dtype or not torch.equal(tensor, expected[name]):
                return False
    return True


class _Plain:
    """Resize, crop: the pictures of a call become one tensor."""

    def __init__(self, processor: Any, table: torch.Tensor) -> None:
        if getattr(processor, "do_pad", None):
            raise ValueError("the processor pads")
        self._processor = processor
        self._table = table

    def _new_size(self, image: Image.Image) -> tuple[int, int]:
        """Give the height and width that the processor resizes to."""
        import numpy as np
        from transformers import image_transforms

        if not self._processor.do_resize:
            return image.height, image.width
        size = self._processor.size
        if size.shortest_edge and size.longest_edge:
            raise ValueError("the processor bounds both edges")
        if size.shortest_edge:
            blank = np.broadcast_to(np.uint8(0), (3, image.height, image.width))
            height, width = image_transforms.get_resize_output_image_size(
                blank,
                size=size.shortest_edge,
                default_to_square=False,
                input_data_format="channels_first",
            )
            return height, width
        return int(size.height), int(size.width)

    def _joined(self, planes: Sequence[npt.NDArray[np.uint8]]) -> _Features | None:
        import numpy as np
        import torch

        if any(one.shape != planes[0].shape for one in planes):
            return None  # the processor refuses them in its own words
        pixels = np.empty((len(planes), *planes[0].shape), dtype=np.uint8)
        for target, one in zip(pixels, planes, strict=True):
            target[...] = one
        return {"pixel_values": BytePixels(torch.from_numpy(pixels), self._table)}


class _Pillow(_Plain):
    """A processor that resizes with Pillow."""

    def __init__(self, processor: Any, table: torch.Tensor) -> None:
        super().__init__(processor, table)
        self._resample = int(processor.resample) if processor.do_resize else None

    def __call__(self, images: Sequence[Image.Image]) -> _Features | None:
        """Process RGB images."""
        return self._joined([self._planes(image) for image in images])

    def _planes(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        import numpy as np

        height, width = self._new_size(image)
        if (width, height) != image.size:
            image = image.resize((width, height), resample=self._resample)
        planes: npt.NDArray[np.uint8] = np.asarray(image).transpose(2, 0, 1)
        if self._processor.do_center_crop:
            planes = self._processor.center_crop(planes, self._processor.crop_size)
        return planes


class _Torchvision(_Plain):
    """A processor that resizes with torchvision; pictures of the right size need no tensors."""

    def __call__(self, images: Sequence[Image.Image]) -> _Features | None:
        """Process RGB images."""
        import numpy as np

        if all(self._fits(image) for image in images):
            return self._joined([np.asarray(image).transpose(2, 0, 1) for image in images])
        features = _unscaled(self._processor, images)
        return features | {"pixel_values": BytePixels(features["pixel_values"], self._table)}

    def _fits(self, image: Image.Image) -> bool:
        size = (image.height, image.width)
        crop = self._processor.crop_size
        cropped = self._processor.do_center_crop and (crop.height, crop.width) != size
        return not cropped and self._new_size(image) == size


class _Tiles:
    """LLaVA-NeXT: one picture a call, cut into tiles by the processor itself."""

    def __init__(self, processor: Any, table: torch.Tensor) -> None:
        self._processor = processor
        self._table = table

    def __call__(self, images: Sequence[Image.Image]) -> _Features | None:
        """Process one RGB image; several are padded behind the last tile, and not with bytes."""
        if len(images) != 1:
            return None
        features = _unscaled(self._processor, images)
        return features | {"pixel_values": BytePixels(features["pixel_values"], self._table)}


def _unscaled(processor: Any, images: Sequence[Image.Image]) -> _Features:
    """Run a processor up to the bytes, without torch's threads, which take long to wake up."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        features: _Features = processor(
            list(images), return_tensors="pt", do_rescale=False, do_normalize=False
        ).data
    finally:
        torch.set_num_threads(threads)
    return features
