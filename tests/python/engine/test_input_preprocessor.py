"""From prompts to token ids, spans and content ids. Layer: engine, no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_fixtures import picture
from tiny_models import IMAGE_TOKEN_ID, ROWS_PER_IMAGE, VOCAB_SIZE, token_ids

from mmcore.config import ModelConfig
from mmcore.engine.input_preprocessor import InputPreprocessor
from mmcore.engine.tokenizer import TokenizerAdapter, load_tokenizer
from mmcore.errors import (
    InternalError,
    MediaError,
    PlaceholderMismatchError,
    ValidationError,
)
from mmcore.inputs import INPUT_REGISTRY
from mmcore.multimodal import MULTIMODAL_REGISTRY, PlaceholderRange
from mmcore.multimodal.placeholders import ExpandedTokenIds


def preprocessor_of(folder: Path, **options: Any) -> InputPreprocessor:
    config = ModelConfig(str(folder), **options)
    MULTIMODAL_REGISTRY.init_mm_limits_per_prompt(config)
    return InputPreprocessor(config, TokenizerAdapter(load_tokenizer(config)))


@pytest.fixture(scope="module")
def vision(llava_folder: Path) -> InputPreprocessor:
    return preprocessor_of(llava_folder, limit_mm_per_prompt={"image": 3})


@pytest.fixture(scope="module")
def text(llama_folder: Path) -> InputPreprocessor:
    return preprocessor_of(llama_folder)


def prompt(content: str | list[int], *images: Any, **more: Any) -> Any:
    key = "prompt" if isinstance(content, str) else "prompt_token_ids"
    made: dict[str, Any] = {key: content, **more}
    if images:
        made["multi_modal_data"] = {"image": images[0] if len(images) == 1 else list(images)}
    return made


def test_text(text: InputPreprocessor) -> None:
    processed = text.process("hello")
    assert processed.token_ids == token_ids("hello")
    assert processed.text == "hello"
    assert list(processed.items) == []


def test_an_image_expands_its_placeholder(vision: InputPreprocessor) -> None:
    processed = vision.process(prompt("a<image>b", picture(0)))
    expanded = [*token_ids("a"), *[IMAGE_TOKEN_ID] * ROWS_PER_IMAGE, *token_ids("b")]
    assert processed.token_ids == expanded
    assert type(processed.token_ids) is list
    [item] = processed.items
    assert item.modality == "image"
    assert item.span == PlaceholderRange(1, ROWS_PER_IMAGE)
    assert len(item.content_id) == 32
    core = item.to_core()
    assert (core.offset, core.length, core.num_embeddings) == (1, 4, 4)


def test_token_prompts_have_unexpanded_placeholders(vision: InputPreprocessor) -> None:
    ids = [*token_ids("x"), IMAGE_TOKEN_ID]
    assert vision.process(prompt(ids, picture(0))).token_ids == ids + [IMAGE_TOKEN_ID] * 3
    assert ids == [*token_ids("x"), IMAGE_TOKEN_ID], "the caller's list was changed"


def test_items_are_in_the_order_of_their_placeholders(vision: InputPreprocessor) -> None:
    both = vision.process(prompt("<image>x<image>", picture(0), picture(1)))
    assert [item.span.offset for item in both.items] == [0, 5]
    swapped = vision.process(prompt("<image>x<image>", picture(1), picture(0)))
    ids = [item.content_id for item in both.items]
    assert [item.content_id for item in swapped.items] == ids[::-1]


def test_content_ids_name_pixels_and_options(vision: InputPreprocessor) -> None:
    def content_id(image: Any, **more: Any) -> bytes:
        [item] = vision.process(prompt("<image>", image, **more)).items
        return item.content_id

    image = picture(0)
    same = content_id(image)
    assert content_id(image.copy()) == same
    assert content_id(np.asarray(image)) == same, "an array of the same pixels"
    assert content_id(picture(1)) != same
    assert content_id(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) != same
    assert content_id(image, mm_processor_kwargs={"do_resize": False}) != same
    reshaped = Image.frombytes("RGB", (32, 40), image.tobytes())
    assert content_id(reshaped) != same, "the same bytes of another shape"


def test_pictures_are_loaded_and_upright(vision: InputPreprocessor, tmp_path: Path) -> None:
    image = picture(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        [item] = vision.process(prompt("<image>", opened)).items
    assert item.data.size == (32, 40)
    assert item.data.mode == "RGB"
    item.data.getpixel((0, 0))  # does not need the file any more


def test_embeddings_as_data(vision: InputPreprocessor) -> None:
    embeds = torch.zeros(2, ROWS_PER_IMAGE, 64)
    processed = vision.process(prompt("<image><image>", embeds))
    assert [item.span for item in processed.items] == [
        PlaceholderRange(0, 4),
        PlaceholderRange(4, 4),
    ]


def test_truncation_keeps_the_end(text: InputPreprocessor) -> None:
    assert text.process("abcdef", truncate_prompt_tokens=2).token_ids == token_ids("ef")


# Refusals.


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (prompt(""), ValidationError),
        (prompt([]), ValidationError),
        (prompt([1, -1]), ValidationError),
        (prompt([VOCAB_SIZE]), ValidationError),
        (prompt([2**40]), ValidationError),
        (prompt([1.5]), ValidationError),  # type: ignore[list-item]
        (prompt("\ud800"), ValidationError),
        (prompt("no placeholder", picture(0)), PlaceholderMismatchError),
        (prompt("<image><image>", picture(0)), PlaceholderMismatchError),
        (prompt("<image>"), PlaceholderMismatchError),
        (prompt([IMAGE_TOKEN_ID]), PlaceholderMismatchError),
        (prompt("<image>" * 4, *map(picture, range(4))), MediaError),
        (prompt("<image>", np.zeros((4, 4), np.float32)), MediaError),
        (prompt("<image>", np.zeros((0, 4, 3), np.uint8)), MediaError),
        ({"prompt": "x", "multi_modal_data": {"smell": 1}}, MediaError),
        ({"prompt": "x", "multi_modal_data": [1]}, ValidationError),
        ({"encoder_prompt": "x", "decoder_prompt": "y"}, ValidationError),
        (3, TypeError),
        ({}, TypeError),
    ],
)
def test_bad_prompts(vision: InputPreprocessor, made: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        vision.process(made)
    assert type(caught.value) is error
    assert vision.process("fine").token_ids == token_ids("fine")


def test_too_long_names_both_lengths(vision: InputPreprocessor) -> None:
    with pytest.raises(ValidationError, match=r"total length 600.*context length 512") as caught:
        vision.process("x" * 600)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(ValidationError, match="total length 513"):
        vision.process(prompt("x" * 509 + "<image>", picture(0)))


def test_an_image_for_a_text_model(text: InputPreprocessor) -> None:
    with pytest.raises(MediaError) as caught:
        text.process(prompt("x", picture(0)))
    assert caught.value.code == "images_not_supported"


def test_none_and_empty_lists_are_no_media(text: InputPreprocessor) -> None:
    for value in (None, []):
        made: Any = {"prompt": "x", "multi_modal_data": {"image": value}}
        assert text.process(made).token_ids == token_ids("x")


# What input processors may do.


class Registry:
    """Stands for the input registry: one processor for every model."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def process_input(self, model_config: Any, inputs: Any) -> Any:
        return self.processor(inputs)


def with_processor(folder: Path, processor: Any) -> InputPreprocessor:
    config = ModelConfig(str(folder), limit_mm_per_prompt={"image": 2})
    MULTIMODAL_REGISTRY.init_mm_limits_per_prompt(config)
    adapter = TokenizerAdapter(load_tokenizer(config))
    registry: Any = Registry(processor)
    return InputPreprocessor(config, adapter, registry)


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (ValueError("too wide"), ValidationError),
        (TypeError("no image"), TypeError),
        (KeyError("height"), InternalError),
        (MediaError("odd"), MediaError),
    ],
)
def test_a_processor_that_raises(
    llava_folder: Path, raised: Exception, error: type[Exception]
) -> None:
    def processor(inputs: Any) -> Any:
        raise raised

    with pytest.raises(error) as caught:
        with_processor(llava_folder, processor).process(prompt("<image>", picture(0)))
    assert type(caught.value) is error


def test_a_processor_may_name_the_ranges(llava_folder: Path) -> None:
    def processor(inputs: Any) -> Any:
        ranges = {"image": [{"offset": 1, "length": 3, "is_embed": [True, False, True]}]}
        return {**inputs, "prompt_token_ids": [7, 8, 9, 8, 7], "multi_modal_placeholders": ranges}

    processed = with_processor(llava_folder, processor).process(prompt("<image>", picture(0)))
    [item] = processed.items
    assert item.span == PlaceholderRange(1, 3, (True, False, True))
    assert item.to_core().num_embeddings == 2


def test_a_processor_may_join_all_items_into_one(llava_folder: Path) -> None:
    def processor(inputs: Any) -> Any:
        ids = ExpandedTokenIds(
            [IMAGE_TOKEN_ID, IMAGE_TOKEN_ID, 9, IMAGE_TOKEN_ID],
            [PlaceholderRange(0, 2), PlaceholderRange(3, 1)],
        )
        return {**inputs, "prompt_token_ids": ids, "multi_modal_data": {"image": {"both": 1}}}

    processed = with_processor(llava_folder, processor).process(
        prompt("<image>x<image>", picture(0), picture(1))
    )
    [item] = processed.items
    assert item.span == PlaceholderRange(0, 4, (True, True, False, True))


def test_a_processor_that_loses_items(llava_folder: Path) -> None:
    def processor(inputs: Any) -> Any:
        processed = INPUT_REGISTRY.process_input(
            ModelConfig(str(llava_folder), limit_mm_per_prompt={"image": 2}), inputs
        )
        return {**processed, "multi_modal_data": {}}

    with pytest.raises(InternalError, match="left 0 image items for 2"):
        with_processor(llava_folder, processor).process(
            prompt("<image><image>", picture(0), picture(1))
        )
