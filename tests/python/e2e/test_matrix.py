"""Greedy tokens are the same however a request is run: cached, preempted, chunked, in a crowd.

Each cell of the matrix runs the same prompts and must give the very tokens that transformers gives
in float32, one prompt at a time. The suite runs cells in which each pair of two axes' values
occurs; MMCORE_TEST_MATRIX=full runs the whole product, for every checkpoint.
"""

from __future__ import annotations

import pytest
from e2e.matrix import FULL, Cell, MatrixReference, covering, make_references, product, run_cell
from e2e.matrix_reference import IMAGES
from e2e.oracle import ABSENT, ORACLE

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not ORACLE.is_dir(), reason=ABSENT),
]

TEXT = ("llama", "qwen2", "mistral")
VISION = ("llava", "llava_next", "llava_siglip")
ARCHS = (*VISION, *TEXT) if FULL else ("llava", "llava_next", "qwen2")


def cells(arch: str) -> list[Cell]:
    images = IMAGES[:1] if arch in TEXT else IMAGES
    return product(images) if FULL else covering(images)


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MatrixReference]:
    root = tmp_path_factory.getbasetemp() / "oracle"
    root.mkdir(exist_ok=True)
    return make_references(ARCHS, root)


@pytest.mark.parametrize(
    ("arch", "cell"),
    [pytest.param(arch, cell, id=f"{arch}-{cell}") for arch in ARCHS for cell in cells(arch)],
)
def test_tokens_are_those_of_transformers(
    references: dict[str, MatrixReference], arch: str, cell: Cell
) -> None:
    run_cell(references[arch], cell)
