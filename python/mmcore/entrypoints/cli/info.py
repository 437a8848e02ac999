"""``mmcore info``: the build, this machine, and the registered models."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a registered model takes.

    Parameters
    ----------
    modalities
        Empty for a text-only model.
    level
        ``"extended"`` where the engine can run the encoder apart from the decoder, ``"seed"``
        otherwise; ``"text"`` for a text-only model.
    problem
        Why the model cannot be used here, if so.
    """

    architecture: str
    modalities: tuple[str, ...]
    level: str
    problem: str | None = None


def run(*, as_json: bool) -> None:
    """Print what there is."""
    build, machine, models = build_facts(), machine_facts(), model_facts()
    if as_json:
        document = {"build": build, "machine": machine, "models": [asdict(m) for m in models]}
        print(json.dumps(document, indent=2))  # noqa: T201
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for title, facts in (("build", build), ("machine", machine)):
        table = Table(title=title, title_justify="left", show_header=False, box=None)
        table.add_column(style="dim", min_width=14)
        table.add_column(overflow="fold")
        for name, value in facts.items():
            text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
            table.add_row(name.replace("_", " "), text)
        console.print(table)
    table = Table(title="models", title_justify="left", box=None, header_style="dim")
    for column in ("architecture", "accepts", "level"):
        table.add_column(column, overflow="fold")
    for model in models:
        table.add_row(
            model.architecture, ", ".join(["text", *model.modalities]), model.problem or model.level
        )
    console.print(table)


def build_facts() -> dict[str, Any]:
    """Say what was built, and against what it runs."""
    import mmcore
    from mmcore import _C

    facts: dict[str, Any] = {
        "mmcore": mmcore.__version__,
        "extension": str(Path(_C.__file__)),
        "cuda_kernels": "built" if _C.with_cuda else "not built",
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def machine_facts() -> dict[str, Any]:
    """Say what CPU ops run on and with, and which GPUs torch sees."""
    from mmcore._C import ops

    names = {value: name for name, value in ops.CPU_ISAS.items()}
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "isa_in_use": names[ops.cpu_isa()],
        "threads": ops.num_threads(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "gpus": gpu_names(),
    }


def cpu_name() -> str:
    """Name the processor."""
    return cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """List the features that decide which kernels run."""
    wanted = (
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512bw",
        "avx512_bf16",
        "avx512_vnni",
        "amx_bf16",
    )
    present = cpuinfo("flags").split()
    return [feature for feature in wanted if feature in present]


def cpuinfo(field: str) -> str:
    """Read a field of the first processor; empty where the kernel does not say."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == field:
                    return value.strip()
    except OSError:
        pass
    return ""


def gpu_names() -> list[str]:
    """List the CUDA devices; mmcore's own CUDA kernels may still be missing from this build."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def model_facts() -> list[ModelFacts]:
    """Look at every registered model's class."""
    from mmcore.model_executor.models import ModelRegistry

    return [describe_model(arch) for arch in ModelRegistry.get_supported_archs()]


def describe_model(architecture: str) -> ModelFacts:
    """Say what a model takes; a class that cannot be imported is a fact, not an error."""
    from mmcore.model_executor.models import (
        ModelRegistry,
        supports_encoder_split,
        supports_multimodal,
    )
    from mmcore.multimodal import MULTIMODAL_REGISTRY

    try:
        model_cls, _ = ModelRegistry.resolve_model_cls(architecture)
    except Exception as error:
        return ModelFacts(architecture, (), "", f"cannot be imported: {error}")
    modalities = tuple(MULTIMODAL_REGISTRY.get_modalities(model_cls))
    if not supports_multimodal(model_cls):
        return ModelFacts(architecture, (), "text")
    level = "extended" if supports_encoder_split(model_cls) else "seed"
    return ModelFacts(architecture, modalities, level)
