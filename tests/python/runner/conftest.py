"""Tiny models for the tests of this folder."""

from tiny_fixtures import llama, llama_folder, llava, llava_folder  # noqa: F401
