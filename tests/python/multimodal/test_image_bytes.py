"""Unit: pixels that are kept as bytes stand for exactly the floats of Hugging Face's processors."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    LlavaImageProcessorPil,
    LlavaNextImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)
from transformers.utils import is_torchvision_available

from mmcore.config import ModelConfig
from mmcore.multimodal import MULTIMODAL_REGISTRY, MultiModalInputs
from mmcore.multimodal.byte_pixels import BytePixels
from mmcore.multimodal.decode import normalize_image
from mmcore.multimodal.image_bytes import byte_features

pytestmark = pytest.mark.hf

PINPOINTS = [[28, 56], [56, 28], [56, 56]]
CLIP = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
PROCESSORS: dict[str, Any] = {
    "clip": lambda: CLIPImageProcessorPil(**CLIP),
    "clip, not cropped": lambda: CLIPImageProcessorPil(
        size={"height": 28, "width": 20}, do_center_crop=False
    ),
    "clip, crop beyond the edge": lambda: CLIPImageProcessorPil(
        size={"shortest_edge": 20}, crop_size={"height": 28, "width": 30}
    ),
    "clip, no resize": lambda: CLIPImageProcessorPil(
        do_resize=False, crop_size={"height": 28, "width": 28}
    ),
    "clip, only rescaled": lambda: CLIPImageProcessorPil(**CLIP, do_normalize=False),
    "clip, only normalised": lambda: CLIPImageProcessorPil(**CLIP, do_rescale=False),
    "clip, odd numbers": lambda: CLIPImageProcessorPil(
        **CLIP, rescale_factor=0.0123, image_mean=[0.1, 0.2, 0.3], image_std=[0.3, 0.7, 0.9]
    ),
    "clip, nearest": lambda: CLIPImageProcessorPil(**CLIP, resample=0),
    "siglip": lambda: SiglipImageProcessorPil(size={"height": 28, "width": 28}),
    "siglip, bilinear": lambda: SiglipImageProcessorPil(
        size={"height": 28, "width": 42}, resample=2
    ),
    "llava": lambda: LlavaImageProcessorPil(**CLIP),
    "llava next": lambda: LlavaNextImageProcessorPil(**CLIP, image_grid_pinpoints=PINPOINTS),
}  # fmt: skip
SIZES = [(28, 28), (56, 56), (29, 28), (100, 30), (30, 100), (1, 1), (3, 70), (640, 480)]


def image(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


def assert_same(processor: Any, images: list[Image.Image]) -> None:
    expected = processor(images, return_tensors="pt").data
    got = byte_features(processor, images)
    assert got is not None
    assert got.keys() == expected.keys()
    pixels = got.pop("pixel_values")
    assert isinstance(pixels, BytePixels)
    floats = pixels.floats()
    assert floats.dtype == expected["pixel_values"].dtype
    assert floats.shape == pixels.shape
    assert torch.equal(floats, expected["pixel_values"])
    assert pixels.nbytes * 4 == floats.nbytes
    for name, value in got.items():
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize("name", PROCESSORS)
def test_bytes_stand_for_the_processors_floats(name: str) -> None:
    processor = PROCESSORS[name]()
    for seed, size in enumerate(SIZES):
        assert_same(processor, [image(*size, seed=seed)])


def torchvision_class(name: str) -> Any:
    """Give an image processor of transformers that works with torchvision."""
    if not is_torchvision_available():
        pytest.skip("needs torchvision")
    folder = {"Llava": "llava", "LlavaNext": "llava_next", "Siglip": "siglip", "CLIP": "clip"}[name]
    module = importlib.import_module(f"transformers.models.{folder}.image_processing_{folder}")
    return getattr(module, f"{name}ImageProcessor")


TORCHVISION: list[tuple[str, dict[str, Any]]] = [
    ("CLIP", CLIP),
    ("CLIP", CLIP | {"resample": 2, "rescale_factor": 0.0123, "image_mean": [0.1, 0.2, 0.3]}),
    ("CLIP", {"size": {"shortest_edge": 20}, "crop_size": {"height": 28, "width": 30}}),
    ("CLIP", CLIP | {"do_normalize": False}),
    ("CLIP", CLIP | {"do_rescale": False}),
    ("Siglip", {"size": {"height": 28, "width": 42}}),
    ("Llava", CLIP),
    ("LlavaNext", CLIP | {"image_grid_pinpoints": PINPOINTS}),
]


@pytest.mark.parametrize(("name", "options"), TORCHVISION)
def test_bytes_stand_for_the_floats_of_torchvision(name: str, options: dict[str, Any]) -> None:
    processor = torchvision_class(name)(**options)
    threads = torch.get_num_threads()
    for seed, size in enumerate([(28, 42), *SIZES]):
        assert_same(processor, [image(*size, seed=seed)])
    if name != "LlavaNext":
        assert_same(processor, [image(30 + i, 40, seed=i) for i in range(3)])
        assert_same(processor, [image(28, 28, seed=i) for i in range(3)])
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_pictures_of_other_modes(mode: str) -> None:
    assert_same(PROCESSORS["clip"](), [normalize_image(image(50, 40, mode))])


@pytest.mark.parametrize("name", ["clip", "siglip", "llava"])
def test_several_pictures_at_once(name: str) -> None:
    assert_same(PROCESSORS[name](), [image(30 + i, 40, seed=i) for i in range(3)])


class Subclass(CLIPImageProcessorPil):
    """Might do anything."""


def test_what_is_not_known_is_left_to_the_processor() -> None:
    patched = PROCESSORS["clip"]()
    patched.resize = lambda image, **kwargs: image
    for processor in (
        Subclass(**CLIP),
        patched,
        ViTImageProcessorPil(size={"height": 28, "width": 28}),
        LlavaImageProcessorPil(**CLIP, do_pad=True),
        CLIPImageProcessorPil(**CLIP, do_rescale=False, do_normalize=False),
        CLIPImageProcessorPil(**CLIP, do_pad=True, pad_size={"height": 40, "width": 40}),
        CLIPImageProcessorPil(**CLIP | {"size": {"shortest_edge": 28, "longest_edge": 60}}),
        CLIPImageProcessorPil(**CLIP, image_mean=[0.1, 0.2]),
        object(),
    ):
        assert byte_features(processor, [image(28, 28)]) is None
    # Tiles of several pictures are padded with zeros, which no byte stands for.
    tiles = PROCESSORS["llava next"]()
    assert byte_features(tiles, [image(28, 28), image(56, 56)]) is None
    # Of different sizes, which the processor has words for.
    unequal = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    assert byte_features(unequal, [image(28, 28), image(56, 56)]) is None


def test_a_processor_that_works_otherwise_than_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = CLIPImageProcessorPil._preprocess

    def brighter(self: Any, *args: Any, **kwargs: Any) -> Any:
        features = original(self, *args, **kwargs)
        features["pixel_values"] = features["pixel_values"] + 1
        return features

    monkeypatch.setattr(CLIPImageProcessorPil, "_preprocess", brighter)
    assert byte_features(PROCESSORS["clip"](), [image(28, 28)]) is None
    assert "is run as it is" in caplog.text


# Through the registry, and on to a model's arguments.


@pytest.fixture
def config(vision_checkpoint: Path) -> ModelConfig:
    config = ModelConfig(str(vision_checkpoint))
    MULTIMODAL_REGISTRY.init_mm_limits_per_prompt(config)
    return config


def test_only_who_asks_gets_bytes(config: ModelConfig) -> None:
    data: Any = {"image": image(70, 60)}
    plain = MULTIMODAL_REGISTRY.map_input(config, data)
    assert isinstance(plain["pixel_values"], torch.Tensor)
    compact = MULTIMODAL_REGISTRY.map_input(config, data, as_bytes=True)
    assert isinstance(compact["pixel_values"], BytePixels)
    for count in (1, 3):
        expected, got = (
            MultiModalInputs.as_kwargs(MultiModalInputs.batch([inputs] * count), device="cpu")
            for inputs in (plain, compact)
        )
        assert isinstance(got["pixel_values"], torch.Tensor)
        assert torch.equal(got["pixel_values"], expected["pixel_values"])  # type: ignore[arg-type]


def test_options_of_a_request_have_a_table_of_their_own(config: ModelConfig) -> None:
    data: Any = {"image": image(70, 60)}
    options: list[Any] = [None, {"image_mean": [0.1, 0.2, 0.3]}, {"do_normalize": False}]
    mapped = [MULTIMODAL_REGISTRY.map_input(config, data, o, as_bytes=True) for o in options]
    batch = MultiModalInputs.as_kwargs(MultiModalInputs.batch(mapped), device="cpu")
    for option, got in zip(options, batch["pixel_values"], strict=True):
        expected = MULTIMODAL_REGISTRY.map_input(config, data, option)["pixel_values"]
        assert torch.equal(got, expected)  # type: ignore[arg-type]


def test_bytes_beside_floats_are_not_stacked() -> None:
    table = torch.rand(3, 256)
    pixels = BytePixels(torch.randint(0, 256, (1, 3, 2, 2), dtype=torch.uint8), table)
    floats = torch.rand(1, 3, 2, 2)
    inputs = [MultiModalInputs({"pixel_values": value}) for value in (pixels, floats)]
    batch = MultiModalInputs.as_kwargs(MultiModalInputs.batch(inputs), device="cpu")
    first, second = batch["pixel_values"]
    assert torch.equal(first, pixels.floats())  # type: ignore[arg-type]
    assert second is floats


@pytest.mark.parametrize(
    ("data", "table"),
    [
        (torch.zeros(3, 2, 2), torch.zeros(3, 256)),
        (torch.zeros(2, 2, dtype=torch.uint8), torch.zeros(2, 256)),
        (torch.zeros(4, 2, 2, dtype=torch.uint8), torch.zeros(3, 256)),
        (torch.zeros(3, 2, 2, dtype=torch.uint8), torch.zeros(3, 255)),
    ],
)
def test_what_is_no_byte_pixels(data: torch.Tensor, table: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="takes uint8"):
        BytePixels(data, table)
