"""The vision projector: two linear layers that bring encoder features into the decoder's space."""

from __future__ import annotations

from torch import Tensor, nn

from mmcore import ops
from mmcore.model_executor.layers.activation import kernel_activation
from mmcore.model_executor.layers.linear import (
    ReplicatedLinear,
    apply_linear,
    prefers_projector,
)

__all__ = ["VisionProjector"]


class VisionProjector(nn.Module):
    """``linear_2(act(linear_1(x)))``, written straight into given rows.

    One op where :func:`~mmcore.model_executor.layers.linear.prefers_projector` says so, else layer
    by layer.

    Parameters
    ----------
    in_features
        Width of encoder features.
    intermediate_features, out_features
        Width between the layers, and of the decoder.
    act
        The activation's name in config.json.
    bias
        Whether both layers have one.
    """

    def __init__(
        self,
        in_features: int,
        intermediate_features: int,
        out_features: int,
        act: str = "gelu",
        bias: bool = True,
        prefix: str = "",
    ) -> None:
        super().__init__()
        self.linear_1 = ReplicatedLinear(
            in_features, intermediate_features, bias=bias, prefix=f"{prefix}.linear_1"
        )
        self.linear_2 = ReplicatedLinear(
            intermediate_features, out_features, bias=bias, prefix=f"{prefix}.linear_2"
        )
        self.act = kernel_activation(act)

    def is_fused_for(self, image_features: Tensor) -> bool:
        """Tell whether one op does it all, for which rows cost nothing to leave out."""
        return prefers_projector(image_features, self.linear_1.weight)

    def forward(
        self, image_features: Tensor, out: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Project features.

        Parameters
        ----------
        image_features
            [..., in features].
        out
            Where results go; allocated when left out.
        rows
            int64, one for each row of features: its row in `out`, or a negative number for a row
            that nobody needs, which is then not computed. Needs `out`.

        Returns
        -------
        Tensor
            [..., out features], or `out`.
        """
        if not self.is_fused_for(image_features):
            return self._by_layers(image_features, out, rows)
        return ops.vision_projector(
            image_features,
            self.linear_1.weight,
            self.linear_1.bias,
            self.linear_2.weight,
            self.linear_2.bias,
            act=self.act,
            rows=rows,
            out=out,
        )

    def _by_layers(self, image_features: Tensor, out: Tensor | None, rows: Tensor | None) -> Tensor:
        if rows is not None:
            if out is None:
                raise ValueError("rows says where rows of `out` go; `out` must be given.")
            kept = (rows >= 0).nonzero().view(-1)
            image_features = image_features.flatten(0, -2).index_select(0, kept)
        inner = apply_linear(image_features, self.linear_1.weight, self.linear_1.bias)
        inner = ops.activation(inner, self.act, out=inner)
        projected = apply_linear(inner, self.linear_2.weight, self.linear_2.bias)
        if out is None:
            return projected
        return out.copy_(projected) if rows is None else out.index_copy_(0, rows[kept], projected)

    def extra_repr(self) -> str:
        """Describe the layer for ``print(model)``."""
        return self.act
