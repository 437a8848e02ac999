"""Dummy inputs and placeholder expansion, the same for every tower."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mmcore.errors import MediaError, PlaceholderMismatchError
from mmcore.inputs import LLMInputs, token_inputs
from mmcore.sequence import SequenceData

if TYPE_CHECKING:
    from mmcore.config import ModelConfig
    from mmcore.multimodal import MultiModalDataDict

__all__ = [
    "dummy_images",
    "dummy_seq_data",
    "expand_image_placeholders",
    "image_feature_sizes",
]


def dummy_seq_data(
    seq_len: int, num_images: int, feature_size: int, image_token_id: int
) -> SequenceData:
    """Make a prompt of `num_images` expanded placeholders, filled up with token 0."""
    media = feature_size * num_images
    return SequenceData.from_prompt_token_counts(
        (image_token_id, media), (0, max(0, seq_len - media))
    )


def dummy_images(num_images: int, *, width: int, height: int) -> MultiModalDataDict:
    """Make blank images: the image itself for one, a list for several."""
    from PIL import Image

    image = Image.new("RGB", (width, height), color=0)
    return {"image": image if num_images == 1 else [image] * num_images}


def image_feature_sizes(
    data: Any, size_of: Callable[[Any], int], *, hidden_size: int | None = None
) -> list[int]:
    """Count the tokens of each image item.

    Parameters
    ----------
    data
        What the prompt has under ``"image"``: an item or a list of items. Embeddings may be one
        tensor [rows, hidden] or [items, rows, hidden], or a list of tensors [rows, hidden] or
        [1, rows, hidden].
    size_of
        Gives the tokens of an item that is no embeddings.
    hidden_size
        Width that embeddings must have; not checked when left out.

    Raises
    ------
    MediaError
        If embeddings have the wrong shape.
    """
    import torch

    sizes: list[int] = []
    for item in data if isinstance(data, list) else [data]:
        if not isinstance(item, torch.Tensor):
            sizes.append(size_of(item))
            continue
        if item.ndim not in (2, 3) or not item.is_floating_point() or 0 in item.shape:
            raise MediaError(
                "Image embeddings must be a floating-point tensor (rows, hidden) or (images, rows, "
                f"hidden), got {item.dtype} {tuple(item.shape)}."
            )
        if hidden_size is not None and item.shape[-1] != hidden_size:
            raise MediaError(
                f"Image embeddings have width {item.shape[-1]}, but the language model's is "
                f"{hidden_size}: pass what the projector gives, not the tower's features."
            )
        if isinstance(data, list) and item.ndim == 3 and item.shape[0] != 1:
            raise MediaError(
                "A list of image embeddings has one image an entry, so entries must be (rows, "
                f"hidden) or (1, rows, hidden), got {tuple(item.shape)}."
            )
        sizes += [item.shape[-2]] * (item.shape[0] if item.ndim == 3 else 1)
    return sizes


def expand_image_placeholders(
    model_config: ModelConfig,
    inputs: LLMInputs,
    *,
    image_token_id: int,
    feature_sizes: int | Sequence[int],
) -> LLMInputs:
    """Repeat each image placeholder as often as its image has tokens, and record the ranges.

    Inputs without images, or with placeholders that are expanded already, come back as they are.

    Parameters
    ----------
    image_token_id
        The placeholder, which occurs once an image in the prompt.
    feature_sizes
        Tokens of every image that is no embeddings, or of each in order.
    """
    from mmcore.multimodal.utils import cached_get_tokenizer, repeat_and_pad_placeholder_tokens

    data = inputs.get("multi_modal_data")
    images = data.get("image") if data else None
    if images is None or "image" in (inputs.get("multi_modal_placeholders") or {}):
        return inputs
    if isinstance(feature_sizes, int):
        same = feature_sizes
        feature_sizes = image_feature_sizes(images, lambda _: same)

    prompt = inputs.get("prompt")
    tokenizer = None
    if prompt is not None and not model_config.skip_tokenizer_init:
        tokenizer = cached_get_tokenizer(
            model_config.tokenizer,
            tokenizer_mode=model_config.tokenizer_mode,
            trust_remote_code=model_config.trust_remote_code,
            revision=model_config.tokenizer_revision,
        )
    new_prompt, new_ids = repeat_and_pad_placeholder_tokens(
        tokenizer,
        None if tokenizer is None else prompt,
        inputs["prompt_token_ids"],
        placeholder_token_id=image_token_id,
        repeat_count=list(feature_sizes),
    )
    ranges = [r for r in new_ids.placeholder_ranges if new_ids[r.offset] == image_token_id]
    left_over = new_ids.count(image_token_id) - sum(r.length for r in ranges)
    if left_over:
        raise PlaceholderMismatchError(
            f"The prompt has {len(ranges) + left_over} image placeholders but "
            f"{len(feature_sizes)} images were given; remove placeholders from the prompt, or "
            "pass an image for each."
        )
    return token_inputs(
        prompt_token_ids=new_ids,
        prompt=prompt if tokenizer is None else new_prompt,
        multi_modal_data=data,
        multi_modal_placeholders={
            **(inputs.get("multi_modal_placeholders") or {}),
            "image": ranges,
        },
        mm_processor_kwargs=inputs.get("mm_processor_kwargs"),
    )
