"""The tokenizer: byte-level BPE, learnt from the questions and captions themselves.

Every word of the task becomes one token; any other text still encodes, byte by byte.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from .questions import caption_question, sample_question
from .scene import sample_scene

UNKNOWN, BOS, EOS, PAD, IMAGE = "<unk>", "<s>", "</s>", "<pad>", "<image>"
SPECIALS = (UNKNOWN, BOS, EOS, PAD, IMAGE)  # their ids are their places here
BOS_ID, EOS_ID, PAD_ID, IMAGE_ID = 1, 2, 3, 4
VOCABULARY = 640
OPENING = "USER: "  # what precedes the image in a chat
REPLY = " ASSISTANT:"


def corpus(seed: int = 0, scenes: int = 6000) -> Iterator[str]:
    """Yield dialogues about random scenes."""
    rng = random.Random(f"tokenizer {seed}")
    for index in range(scenes):
        scene = sample_scene(rng, strict=index % 2 == 0)
        questions = [sample_question(scene, rng) for _ in range(4)]
        if scene.strict:
            questions.append(caption_question(scene, rng))
        for question in questions:
            yield f"{OPENING}\n{question.text}{REPLY} {question.answer}"


def build_tokenizer(seed: int = 0) -> Tokenizer:
    """Learn the vocabulary; the same seed gives the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # The reply starts with a space, which nobody wants to read; Llama's tokenizer drops it too.
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIALS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer
