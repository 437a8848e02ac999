"""Tiny models for the tests of this folder."""

from tiny_fixtures import (  # noqa: F401
    llama,
    llama_folder,
    llava,
    llava_folder,
    make_llama,
    make_llava,
)
