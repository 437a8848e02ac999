"""Pixels that are still bytes: a quarter of the memory, and less to copy to a device.

Rescaling and normalising a picture looks at one channel of one pixel at a time, so what comes out
is a function of channel and byte. A picture may therefore wait as bytes, beside the table of that
function, until it is where the model is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmcore.transfer import to_device

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

__all__ = ["BytePixels", "look_up"]


class BytePixels:
    """A float tensor [..., C, H, W] that has not been made yet.

    :meth:`MultiModalInputs.as_kwargs <mmcore.multimodal.MultiModalInputs.as_kwargs>` makes it, so
    that models see tensors only.

    Parameters
    ----------
    data
        uint8 [..., C, H, W].
    table
        float32 [C, 256]: what each byte stands for, on the host.
    """

    __slots__ = ("data", "table")

    def __init__(self, data: torch.Tensor, table: torch.Tensor) -> None:
        if (
            str(data.dtype) != "torch.uint8"
            or data.ndim < 3
            or table.shape != (data.shape[-3], 256)
        ):
            raise ValueError(
                f"BytePixels takes uint8 [..., C, H, W] and a table [C, 256], got {data.dtype} "
                f"{tuple(data.shape)} and {tuple(table.shape)}."
            )
        self.data = data
        self.table = table

    @property
    def shape(self) -> torch.Size:
        """Shape of the tensor."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """Dimensions of the tensor."""
        return self.data.ndim

    @property
    def nbytes(self) -> int:
        """Bytes that are held; the table is shared by all pictures of a processor."""
        return self.data.nbytes

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return f"BytePixels({tuple(self.shape)})"

    def floats(self, device: torch.types.Device = None) -> torch.Tensor:
        """Make the tensor, float32, on a device: the bytes travel, not the floats."""
        device = self.data.device if device is None else device
        return look_up(to_device(self.data, device), to_device(self.table, device))

    @staticmethod
    def stack(pixels: Sequence[BytePixels]) -> BytePixels | None:
        """Join pictures on the host in a new first dimension; None if shapes or tables differ."""
        import numpy as np
        import torch

        first = pixels[0]
        for other in pixels[1:]:
            same = other.table is first.table or torch.equal(other.table, first.table)
            if not same or other.shape != first.shape:
                return None
        # numpy copies at once, where torch would wake its threads up.
        stacked = np.stack([one.data.numpy() for one in pixels])
        return BytePixels(torch.from_numpy(stacked), first.table)


def look_up(data: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Give ``table[channel, byte]``, float32, for each byte of [..., C, H, W]."""
    import torch

    if data.is_cpu:
        return torch.from_numpy(_look_up_on_host(data.numpy(), table.numpy()))
    channels = data.shape[-3]
    firsts = torch.arange(0, 256 * channels, 256, dtype=torch.int32, device=data.device)
    places = data.int().add_(firsts.view(channels, 1, 1))
    return table.view(-1).index_select(0, places.view(-1)).view(data.shape)


def _look_up_on_host(
    data: npt.NDArray[np.uint8], table: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Do it without torch's threads, which take longer to wake up than this."""
    import numpy as np

    out = np.empty(data.shape, dtype=np.float32)
    for channel, values in enumerate(table):
        # No byte is out of bounds; "clip" writes to `out` without a buffer.
        values.take(data[..., channel, :, :], out=out[..., channel, :, :], mode="clip")
    return out
