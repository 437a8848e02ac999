"""``mmcore check``: what would run for a checkpoint, from its configuration and headers alone."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcore.config import ModelConfig
    from mmcore.engine.arg_utils import EngineConfig
    from mmcore.model_executor.memory_plan import MemoryPlan


@dataclass(frozen=True, slots=True)
class Report:
    """What was found out.

    Parameters
    ----------
    stored_dtypes
        Tensors of each dtype in the files.
    tokens_per_item
        The most tokens that one item of a modality takes; empty for a text-only model.
    processor
        Class of the image processor; None where there is none.
    problems
        What keeps a request from being served, in words.
    """

    model: str
    architecture: str
    runs_as: str
    level: str
    parameters: int
    tensors: int
    file_bytes: int
    stored_dtypes: Mapping[str, int]
    dtype: str
    max_model_len: int
    vocabulary: int
    device: str
    tokens_per_item: Mapping[str, int] = field(default_factory=dict)
    tokenizer: str | None = None
    chat_template: bool = False
    processor: str | None = None
    memory_plan: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def run(model: str, *, dtype: str, max_model_len: int | None, as_json: bool) -> None:
    """Examine a checkpoint and print; exits with status 2 if it could not be served."""
    from mmcore.entrypoints.cli.failures import USER_ERROR, complain

    report = examine(model, dtype=dtype, max_model_len=max_model_len)
    if as_json:
        print(json.dumps(asdict(report), indent=2))  # noqa: T201
    else:
        print_report(report)
        for problem in report.problems:
            complain(problem, label="problem")
    if report.problems:
        raise SystemExit(USER_ERROR)


def examine(model: str, *, dtype: str = "auto", max_model_len: int | None = None) -> Report:
    """Find out what would run. No weights are read.

    Raises
    ------
    CheckpointError
        If there is no checkpoint, or its files are damaged.
    ValidationError
        If the architecture is unknown or an option is out of range.
    """
    from mmcore.engine.arg_utils import EngineArgs
    from mmcore.entrypoints.cli.info import describe_model
    from mmcore.model_executor.model_loader import CheckpointReader, checkpoint_folder
    from mmcore.model_executor.models import ModelRegistry
    from mmcore.multimodal import MULTIMODAL_REGISTRY

    config = EngineArgs(
        model=model, dtype=dtype, max_model_len=max_model_len
    ).create_engine_config()
    model_config = config.model_config
    model_cls, architecture = ModelRegistry.resolve_model_cls(model_config.architectures)
    device = config.device_config.device_type
    run_dtype = model_config.dtype_for(device)
    headers = CheckpointReader(checkpoint_folder(model, model_config.revision)).tensors
    parameters = sum(math.prod(info.shape) for info in headers.values())
    MULTIMODAL_REGISTRY.init_mm_limits_per_prompt(model_config)
    tokens_per_item = (
        MULTIMODAL_REGISTRY.get_max_tokens_per_item(model_config)
        if model_config.is_multimodal_model
        else {}
    )
    facts = describe_model(architecture)
    text_facts, problems = _text_facts(model_config)
    processor, processor_problems = _processor(model_config, "image" in tokens_per_item)
    plan, plan_problems = _plan(config, parameters * run_dtype.itemsize, facts.level == "extended")
    return Report(
        model=model,
        architecture=architecture,
        runs_as=f"{model_cls.__module__}.{model_cls.__qualname__}",
        level=facts.level,
        parameters=parameters,
        tensors=len(headers),
        file_bytes=sum(info.nbytes for info in headers.values()),
        stored_dtypes=dict(Counter(info.dtype for info in headers.values())),
        dtype=str(run_dtype).removeprefix("torch."),
        max_model_len=model_config.max_model_len,
        vocabulary=model_config.get_vocab_size(),
        device=device,
        tokens_per_item=tokens_per_item,
        tokenizer=text_facts.get("tokenizer"),
        chat_template=bool(text_facts.get("chat_template")),
        processor=processor,
        memory_plan=() if plan is None else tuple(plan.lines()),
        problems=(*problems, *processor_problems, *plan_problems),
    )


def _text_facts(model_config: ModelConfig) -> tuple[dict[str, Any], list[str]]:
    from mmcore.engine.tokenizer import load_tokenizer
    from mmcore.entrypoints.chat_template import ChatTemplate
    from mmcore.errors import MmcoreError

    try:
        tokenizer = load_tokenizer(model_config)
    except MmcoreError as error:
        return {}, [f"{error} Only prompts of token ids could be served."]
    has_template = ChatTemplate(model_config, tokenizer).exists()
    return {"tokenizer": type(tokenizer).__name__, "chat_template": has_template}, []


def _processor(model_config: ModelConfig, takes_images: bool) -> tuple[str | None, list[str]]:
    from mmcore.errors import MmcoreError
    from mmcore.multimodal.hf_processor import cached_get_image_processor

    if not takes_images:
        return None, []
    try:
        processor = cached_get_image_processor(
            model_config.model,
            revision=model_config.revision,
            trust_remote_code=model_config.trust_remote_code,
        )
    except MmcoreError as error:
        return None, [str(error)]
    return (None if processor is None else type(processor).__name__), []


def _plan(
    config: EngineConfig, weights_bytes: int, keeps_encoder_outputs: bool
) -> tuple[MemoryPlan | None, list[str]]:
    import torch

    from mmcore.errors import ValidationError
    from mmcore.model_executor.executor import EncoderLimits, encoder_limits, memory_request
    from mmcore.model_executor.memory_plan import plan_memory

    limits = EncoderLimits()
    if config.model_config.is_multimodal_model:
        limits = encoder_limits(config.model_config, config.scheduler_config)
        if not keeps_encoder_outputs:
            limits = EncoderLimits(limits.budget)
    request = memory_request(
        config.model_config,
        config.cache_config,
        config.scheduler_config,
        limits,
        torch.device(config.device_config.device_type),
        weights_bytes=weights_bytes,
        weights_loaded=False,
    )
    try:
        return plan_memory(request), []
    except ValidationError as error:
        return None, [str(error)]


def print_report(report: Report) -> None:
    """Print a report as a table."""
    from rich.console import Console
    from rich.table import Table

    stored = ", ".join(f"{count} x {dtype}" for dtype, count in report.stored_dtypes.items())
    rows = {
        "model": report.model,
        "architecture": report.architecture,
        "runs as": f"{report.runs_as} ({report.level} level)",
        "weights": f"{report.parameters / 1e6:,.1f} M parameters in {report.tensors} tensors "
        f"({stored}), {report.file_bytes / 2**20:,.1f} MiB",
        "runs in": f"{report.dtype} on {report.device}",
        "context": f"{report.max_model_len:,} tokens",
        "vocabulary": f"{report.vocabulary:,}",
        "tokenizer": report.tokenizer or "none",
        "chat template": "yes" if report.chat_template else "no",
    }
    for modality, tokens in report.tokens_per_item.items():
        rows[modality] = f"at most {tokens:,} tokens each"
    if report.processor is not None:
        rows["processor"] = report.processor
    table = Table(show_header=False, box=None)
    table.add_column(style="dim", min_width=14)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    for index, line in enumerate(report.memory_plan):
        table.add_row("" if index else "memory", line.removeprefix("memory plan on "))
    Console(highlight=False).print(table)
