"""Tiny models for the tests of this folder."""

from tiny_fixtures import llama_folder, llava_folder  # noqa: F401
