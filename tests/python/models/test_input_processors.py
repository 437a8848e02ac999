"""Expanded prompts against Hugging Face's processors. Layer: model, no weights."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import processors, tiny
from PIL import Image

from mmcore.config import ModelConfig
from mmcore.errors import MediaError, PlaceholderMismatchError
from mmcore.inputs import INPUT_REGISTRY, token_inputs
from mmcore.multimodal import MULTIMODAL_REGISTRY, MultiModalInputs, PlaceholderRange

pytestmark = pytest.mark.hf

SEED = 77
CONFIGS: dict[str, Any] = {
    "llava": lambda: tiny.llava_config(),
    "llava full": lambda: tiny.llava_config(vision_feature_select_strategy="full"),
    "llava siglip": lambda: tiny.llava_config(
        vision_config=tiny.siglip_config(), vision_feature_select_strategy="full"
    ),
    "llava_next": lambda: tiny.llava_next_config(),
    "llava_next siglip": lambda: tiny.llava_next_config(
        vision_config=tiny.siglip_config(), vision_feature_select_strategy="full"
    ),
}
PROMPT = "<s> USER: <image> What is this ? ASSISTANT:"
TWO = "<s> USER: <image> and <image> . ASSISTANT:"


class Folder:
    """A checkpoint without weights, and Hugging Face's processor of it."""

    def __init__(self, config: Any, path: Path, **options: Any) -> None:
        self.hf = processors.make_processor(config, path, **options)
        self.path = path
        self.model_config = ModelConfig(str(path), limit_mm_per_prompt={"image": 3})
        MULTIMODAL_REGISTRY.init_mm_limits_per_prompt(self.model_config)

    def process(self, data: Any, text: str = PROMPT) -> Any:
        ids = self.hf.tokenizer(text, add_special_tokens=False).input_ids
        inputs = token_inputs(ids, prompt=text, multi_modal_data={"image": data})
        return INPUT_REGISTRY.process_input(self.model_config, inputs)

    def hf_ids(self, images: Any, text: str = PROMPT) -> list[int]:
        ids = self.hf(images=images, text=text, add_special_tokens=False).input_ids
        return list(ids[0] if isinstance(ids[0], list) else ids)


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(CONFIGS[request.param](), tmp_path_factory.mktemp("processor"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tiny.llava_config(), tmp_path_factory.mktemp("llava"))


def picture(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (200, 30, 90))


def random_sizes(count: int) -> list[tuple[int, int]]:
    rng = random.Random(SEED)
    return [(56, 56), (60, 2), (3, 200)] + [
        (rng.randint(1, 400), rng.randint(2, 400)) for _ in range(count)
    ]


def test_same_ids_for_many_sizes(folder: Folder) -> None:
    for width, height in random_sizes(40):
        image = picture(width, height)
        got = folder.process(image)
        assert got["prompt_token_ids"] == folder.hf_ids(image), f"{width}x{height}, seed {SEED}"
        (span,) = got["multi_modal_placeholders"]["image"]
        ids = got["prompt_token_ids"]
        assert ids[span.offset : span.end] == [tiny.IMAGE_TOKEN] * span.length
        assert ids.count(tiny.IMAGE_TOKEN) == span.length
        assert got["prompt"].count("<image>") == span.length


def test_same_ids_for_two_images(folder: Folder) -> None:
    images = [picture(300, 80), picture(64, 190)]
    got = folder.process(images, TWO)
    assert got["prompt_token_ids"] == folder.hf_ids(images, TWO)
    first, second = got["multi_modal_placeholders"]["image"]
    assert second.offset > first.end
    assert got["multi_modal_data"]["image"] is images


def test_as_many_tokens_as_embeddings(folder: Folder) -> None:
    reference = tiny.make(folder.model_config.hf_config)
    tiny.save(reference, folder.path)
    model, config = tiny.load(folder.path, limit_mm_per_prompt={"image": 3})
    MULTIMODAL_REGISTRY.init_mm_limits_per_prompt(config)
    for size in ((300, 80), (5, 90), (111, 113)):
        image = picture(*size)
        (span,) = folder.process(image)["multi_modal_placeholders"]["image"]
        mapped = MULTIMODAL_REGISTRY.map_input(config, {"image": image})
        (rows,) = model.embed_multimodal(**MultiModalInputs.batch([mapped]))
        assert rows.shape == (span.length, config.get_hidden_size())


def test_dummy_data_are_the_upper_bound(folder: Folder) -> None:
    most = MULTIMODAL_REGISTRY.get_max_tokens_per_item(folder.model_config)["image"]
    for width, height in random_sizes(30):
        (span,) = folder.process(picture(width, height))["multi_modal_placeholders"]["image"]
        assert span.length <= most
    dummy = INPUT_REGISTRY.dummy_data_for_profiling(
        folder.model_config, 3 * most + 7, MULTIMODAL_REGISTRY
    )
    ids = dummy.seq_data.prompt_token_ids
    assert len(ids) == 3 * most + 7
    assert ids.count(tiny.IMAGE_TOKEN) == 3 * most
    assert dummy.multi_modal_data is not None
    images: Any = dummy.multi_modal_data["image"]
    assert len(images) == 3
    (span,) = folder.process(images[0])["multi_modal_placeholders"]["image"]
    assert span.length == most  # the dummy image really is the largest


def test_dummy_data_longer_than_asked_for_and_without_images(llava: Folder) -> None:
    dummy = INPUT_REGISTRY.dummy_data_for_profiling(llava.model_config, 5, MULTIMODAL_REGISTRY)
    assert dummy.seq_data.get_prompt_len() == 48
    none = ModelConfig(str(llava.path), limit_mm_per_prompt={"image": 0})
    MULTIMODAL_REGISTRY.init_mm_limits_per_prompt(none)
    dummy = INPUT_REGISTRY.dummy_data_for_profiling(none, 5, MULTIMODAL_REGISTRY)
    assert dummy.seq_data.prompt_token_ids == (0,) * 5
    assert dummy.multi_modal_data is None


def test_a_checkpoint_of_the_old_kind_expands_the_same(llava: Folder, tmp_path: Path) -> None:
    old = Folder(tiny.llava_config(), tmp_path, old=True)
    image = picture(90, 70)
    assert old.process(image)["prompt_token_ids"] == llava.hf_ids(image)


@pytest.mark.parametrize(
    ("embeds", "lengths"),
    [
        (torch.zeros(5, 96), [5]),
        (torch.zeros(1, 5, 96), [5]),
        (torch.zeros(2, 5, 96), [5, 5]),  # every one of them is expanded
        ([torch.zeros(3, 96), torch.zeros(1, 4, 96)], [3, 4]),
    ],
)
def test_embeddings_take_as_many_tokens_as_rows(
    folder: Folder, embeds: Any, lengths: list[int]
) -> None:
    prompt = TWO if len(lengths) == 2 else PROMPT
    spans = folder.process(embeds, prompt)["multi_modal_placeholders"]["image"]
    assert [span.length for span in spans] == lengths


@pytest.mark.parametrize(
    ("embeds", "message"),
    [
        (torch.zeros(5, 64), "width 64, but the language model's is 96"),
        (torch.zeros(96), r"got torch\.float32 \(96,\)"),
        (torch.zeros(5, 96, dtype=torch.int64), r"torch\.int64"),
        (torch.zeros(0, 96), r"\(0, 96\)"),
        ([torch.zeros(2, 3, 96)], "one image an entry"),
    ],
)
def test_bad_embeddings_are_refused(folder: Folder, embeds: Any, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        folder.process(embeds)


def test_nothing_to_expand(llava: Folder) -> None:
    text = token_inputs([1, 2, 3])
    assert INPUT_REGISTRY.process_input(llava.model_config, text) is text
    expanded = token_inputs(
        [1, tiny.IMAGE_TOKEN],
        multi_modal_data={"image": picture(9, 9)},
        multi_modal_placeholders={"image": [PlaceholderRange(1, 1)]},
    )
    assert INPUT_REGISTRY.process_input(llava.model_config, expanded) is expanded


def test_more_placeholders_than_images_are_refused(llava: Folder) -> None:
    with pytest.raises(PlaceholderMismatchError, match="has 2 image placeholders but 1 images"):
        llava.process(picture(9, 9), TWO)


def test_token_prompts_need_no_tokenizer(tmp_path: Path) -> None:
    folder = Folder(tiny.llava_config(), tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    inputs = token_inputs([4, tiny.IMAGE_TOKEN], multi_modal_data={"image": picture(9, 9)})
    got = INPUT_REGISTRY.process_input(folder.model_config, inputs)
    assert len(got["prompt_token_ids"]) == 17
    assert "prompt" not in got


def test_arrays_and_turned_pictures_are_seen_as_they_will_be_mapped(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = Folder(tiny.llava_next_config(), tmp_path_factory.mktemp("next"))
    upright = folder.process(picture(300, 80))["prompt_token_ids"]
    array = np.zeros((80, 300, 3), np.uint8)
    assert folder.process(array)["prompt_token_ids"] == upright
    turned = picture(80, 300)
    turned.getexif()[0x0112] = 6
    assert folder.process(turned)["prompt_token_ids"] == upright
    with pytest.raises(MediaError, match="got str"):
        folder.process("picture.png")
