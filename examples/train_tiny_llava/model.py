"""A small LLaVA-1.5 in plain PyTorch: CLIP tower, GELU projector, Llama decoder.

Parameters carry the names that checkpoints on the hub use, so that a state dict is a checkpoint.
Training packs many questions about one picture into one sequence; inference does not need that
and is left to the engines.

    prefix                                   text
    <s> U S E R : _ <image> x 196            question, reply | question, reply | ... | padding
                                             branch 1          branch 2              branch 0

A text token sees the prefix and what precedes it in its own branch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .colours import NAMES
from .decoder import Decoder
from .forms import KINDS
from .render import GRID
from .sizes import DEFAULT, PIXEL_MEAN, PIXEL_STD, Sizes
from .vision import Projector, VisionTower


class TinyLlava(nn.Module):
    """The whole model; ``patch_kind`` and ``patch_colour`` serve the training alone."""

    def __init__(self, sizes: Sizes = DEFAULT) -> None:
        super().__init__()
        self.sizes = sizes
        self.vision_tower = VisionTower(sizes)
        self.multi_modal_projector = Projector(sizes)
        self.language_model = Decoder(sizes)
        self.patch_kind = nn.Linear(sizes.vision_hidden, len(KINDS) + 1)
        self.patch_colour = nn.Linear(sizes.vision_hidden, len(NAMES) + 1)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor(PIXEL_MEAN), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(PIXEL_STD), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                last = name.split(".")[-2] in ("out_proj", "fc2", "o_proj", "down_proj")
                nn.init.normal_(parameter, std=0.008 if last else 0.03)

    def freeze_unread(self) -> None:
        """Leave alone what LLaVA does not read: the tower's last layer and final norm."""
        tower = self.vision_tower.vision_model
        tower.encoder.layers[-1].requires_grad_(False)
        tower.post_layernorm.requires_grad_(False)

    def checkpoint(self) -> dict[str, Tensor]:
        """Return the tensors that belong into a checkpoint."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("patch_")}

    def see(self, images: Tensor) -> Tensor:
        """Return the tower's features [batch, patches, width]; images have the channels last."""
        pixels = ((images - self.mean) / self.std).permute(0, 3, 1, 2)
        return self.vision_tower.vision_model(pixels)

    def forward(
        self, images: Tensor, opening: Tensor, text: Tensor, branch: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the logits after every text token, and the tower's features.

        ``images`` is [batch, SIDE, SIDE, 3], 0 to 255; ``opening`` holds the tokens before the
        image, [batch, n], padded on the left with -1; ``text`` and ``branch`` are [batch, length].
        """
        features = self.see(images)
        embed = self.language_model.model.embed_tokens
        seen = self.multi_modal_projector(features).float()
        x = torch.cat((embed(opening.clamp(min=0)), seen, embed(text)), 1)
        positions, mask = attention_plan(opening, branch)
        hidden = self.language_model.model(x, positions, mask)
        start = opening.shape[1] + GRID * GRID
        return self.language_model.lm_head(hidden[:, start:]), features


def attention_plan(opening: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
    """Return the position of every token and who sees whom, [batch, 1, query, key]."""
    batch, head = opening.shape
    device = branch.device
    present = torch.cat(
        (opening >= 0, torch.ones(batch, GRID * GRID, dtype=torch.bool, device=device)), 1
    )
    group = torch.cat((torch.zeros_like(present, dtype=branch.dtype), branch), 1)
    present = torch.cat((present, branch > 0), 1)
    index = torch.arange(present.shape[1], device=device)
    shared = index < head + GRID * GRID
    mask = (group[:, :, None] == group[:, None, :]) & ~shared | shared[None, None, :]
    mask = mask & (index[:, None] >= index[None, :]) & present[:, None, :]
    mask = mask | (index[:, None] == index[None, :])  # padding sees itself: no empty row
    # A token's position counts the present ones that it sees before itself.
    positions = (mask & present[:, None, :]).sum(-1) - 1
    return positions.clamp(min=0), mask[:, None]
