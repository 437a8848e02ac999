"""Loading a checkpoint into a model: each tensor is mapped, converted and copied once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmcore.errors import CheckpointError, MmcoreError
from mmcore.hf_config import looks_like_path
from mmcore.model_executor.layers.parameter import (
    WeightShapeError,
    expected_shards,
    loaded_shards,
)
from mmcore.model_executor.model_loader.construction import construct_model, default_dtype
from mmcore.model_executor.model_loader.safetensors_files import TensorInfo, read_headers
from mmcore.model_executor.model_loader.weight_utils import initialize_dummy_weights

if TYPE_CHECKING:
    from mmcore.config import CacheConfig, LoadConfig, ModelConfig, SchedulerConfig

__all__ = ["CheckpointReader", "checkpoint_folder", "get_model", "initialize_model", "load_weights"]

logger = logging.getLogger(__name__)


def get_model(
    model_config: ModelConfig,
    load_config: LoadConfig | None = None,
    *,
    device: torch.device | str = "cpu",
    cache_config: CacheConfig | None = None,
    scheduler_config: SchedulerConfig | None = None,
) -> nn.Module:
    """Make the model of a checkpoint and fill it.

    Parameters
    ----------
    model_config
        The checkpoint; its ``dtype_for`` decides the parameters' dtype.
    load_config
        Where weights come from; the checkpoint when left out.
    device
        Where parameters live.

    Returns
    -------
    nn.Module
        In evaluation mode.

    Raises
    ------
    CheckpointError
        If a tensor is missing, unexpected or of the wrong shape, or a file is damaged.
    """
    started = time.perf_counter()
    device = torch.empty(0, device=device).device  # with its index, as tensors name it
    with default_dtype(model_config.dtype_for(device.type)), device:
        model = initialize_model(
            model_config, cache_config=cache_config, scheduler_config=scheduler_config
        )
    for param in model.parameters():
        param.requires_grad_(False)
    if load_config is not None and load_config.load_format == "dummy":
        initialize_dummy_weights(model, model_config.seed)
    else:
        load_weights(model, checkpoint_folder(model_config.model, model_config.revision))
    for module in model.modules():
        prepare = getattr(module, "prepare_on", None)
        if callable(prepare):
            prepare(device)
    logger.info("loaded %s in %.1f s", model_config.model, time.perf_counter() - started)
    return model.eval()


def initialize_model(
    model_config: ModelConfig,
    *,
    cache_config: CacheConfig | None = None,
    scheduler_config: SchedulerConfig | None = None,
) -> nn.Module:
    """Make the model of a checkpoint without filling it, of torch's default dtype and device.

    The constructor gets those of these arguments that it names: ``config``, ``multimodal_config``,
    ``cache_config``, ``quant_config``, ``lora_config``, ``scheduler_config``.
    """
    return construct_model(
        model_config.get_model_cls(),
        model_config.hf_config,
        multimodal_config=model_config.multimodal_config,
        cache_config=cache_config,
        quant_config=None,
        lora_config=None,
        scheduler_config=scheduler_config,
    )


def checkpoint_folder(model: str, revision: str | None = None) -> Path:
    """Give the folder of a checkpoint, fetching a hub name's safetensors files.

    Raises
    ------
    CheckpointError
        If it can be found neither here nor on the hub.
    """
    path = Path(model).expanduser()
    if path.is_dir() or looks_like_path(model):
        return path
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.safetensors", "*.safetensors.index.json"]
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise CheckpointError(
            f"The weights of {model!r} could not be fetched from the hub "
            f"({type(error).__name__}: {error}). Give a local folder, or check name and network."
        ) from error


class CheckpointReader:
    """Streams the tensors of a checkpoint, memory-mapped, and knows which one is being used.

    Parameters
    ----------
    folder
        Holds safetensors files. Their headers are read and checked here.

    Attributes
    ----------
    tensors
        What the headers say, by name.
    current
        The tensor that was given out last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tensors = read_headers(folder)
        self.current: TensorInfo | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.nbytes for info in self.tensors.values())

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        from safetensors import SafetensorError, safe_open

        for path in dict.fromkeys(info.file for info in self.tensors.values()):
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118
                        self.current = self.tensors[name]
                        yield name, file.get_tensor(name)
            except SafetensorError as error:
                raise CheckpointError(f"{path} cannot be read: {error}.") from error
        self.current = None


def load_weights(model: nn.Module, folder: Path) -> None:
    """Fill a model from a folder of safetensors files.

    Raises
    ------
    CheckpointError
        If a tensor is missing, unexpected or of the wrong shape, or a file is damaged. The message
        names the tensor, its file, and what was found and expected.
    """
    reader = CheckpointReader(folder)
    loader: Callable[..., set[str] | None] | None = getattr(model, "load_weights", None)
    if loader is None:
        raise CheckpointError(
            f"{type(model).__name__} has no method load_weights(weights), so it cannot be loaded."
        )
    try:
        loaded = loader(iter(reader))
    except WeightShapeError as error:
        info = reader.current
        if info is None:
            raise CheckpointError(str(error)) from error
        raise CheckpointError(
            f"The tensor {info.name!r} in {info.file} has shape {list(info.shape)}, the model "
            f"expects {error.expected}: config.json and weights do not belong together."
        ) from error
    except (CheckpointError, KeyError) as error:
        # Seed-era models look parameters up in a dictionary, so a KeyError is a name.
        info = reader.current
        if info is None or (isinstance(error, MmcoreError) and error.code != "unexpected_tensor"):
            raise
        raise CheckpointError(
            f"The tensor {info.name!r} in {info.file} (shape {list(info.shape)}) belongs to no "
            f"parameter of {type(model).__name__}: config.json and weights do not belong together."
        ) from error
    _check_complete(model, loaded, folder)


def _check_complete(model: nn.Module, loaded: set[str] | None, folder: Path) -> None:
    """Refuse a model that has parameters without values."""
    missing = []
    for name, param in model.named_parameters():
        done, parts = loaded_shards(param), expected_shards(param)
        # A model may also fill parameters by itself and say so.
        if None in done or (not done and loaded is not None and name in loaded):
            continue
        absent = [part for part in parts if part not in done]
        if absent or not done:
            which = f" (parts {absent})" if done else ""
            missing.append(f"{name} {list(param.shape)}{which}")
    if not missing:
        return
    more = "" if len(missing) <= 5 else f" and {len(missing) - 5} more"
    message = (
        f"The checkpoint {str(folder)!r} has no tensors for {len(missing)} parameters of "
        f"{type(model).__name__}: {', '.join(missing[:5])}{more}. It is incomplete, or config.json "
        "and weights do not belong together."
    )
    if loaded is None:
        # The model's own load_weights copies in a way that leaves no record; it may be right.
        logger.warning("%s", message)
        return
    raise CheckpointError(message)
