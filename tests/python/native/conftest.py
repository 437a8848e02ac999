"""One torch thread: tiny tensors gain nothing from more, and a busy machine makes them wait."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
