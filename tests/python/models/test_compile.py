"""A whole model goes through torch.compile without a graph break. Layer: model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models import tiny
from models.paged import PagedRun, run_whole

pytestmark = pytest.mark.hf


@torch.inference_mode()
def test_compiled_is_eager(tmp_path: Path) -> None:
    _, model = tiny.both(tiny.llama_config(num_hidden_layers=1), tmp_path)
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)

    class Compiled(SimpleNamespace):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return compiled(*args, **kwargs)

    same = Compiled(config=model.config, compute_logits=model.compute_logits)
    ids = torch.arange(3, 40)
    torch.testing.assert_close(run_whole(same, ids), run_whole(model, ids), atol=1e-5, rtol=1e-5)
    one, two = PagedRun(model), PagedRun(same)
    for piece in (ids[:20], ids[20:21]):
        torch.testing.assert_close(
            two.step([("a", piece)])[0], one.step([("a", piece)])[0], atol=1e-5, rtol=1e-5
        )
