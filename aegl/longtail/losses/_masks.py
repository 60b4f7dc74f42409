"""Masks of elements as numbers, 0 and 1, in the dtype of the logits.

On a CPU a comparison into floats is three times faster than one into bools, and what follows is arithmetic anyway.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aegl.longtail.base import Draws
from aegl.longtail.losses._blocks import row_blocks

_LEVELS = 2**8


def at_least(values: Tensor, threshold: Tensor | float) -> Tensor:
    """1 where ``values >= threshold``, else 0; shape of ``values``, which the threshold broadcasts to."""
    return torch.ge(values.detach(), threshold, out=torch.empty_like(values))


def above(values: Tensor, threshold: Tensor | float) -> Tensor:
    """1 where ``values > threshold``, else 0; as :func:`at_least`."""
    return torch.gt(values.detach(), threshold, out=torch.empty_like(values))


class DrawnBelow:
    """Gives some rows at a time 1 with probability ``rate``, independently for each element, else 0.

    That is ``u < rate`` with u uniform in [0, 1). A draw is one of the 8 bytes that the generator, by far the slowest
    part, gives at a time. To that grid the rate is rounded at random in each column, once for all rows, so that its
    mean is met exactly; 0 and 1 are never rounded.

    Args:
        rate: in [0, 1], a number or one for each column.
        draws: ``uniform``, if it is there, is u, ``[N, C]``.
        like: ``[..., C]``, says number of columns, dtype and device.
    """

    def __init__(self, rate: Tensor | float, draws: Draws, like: Tensor) -> None:
        rate = torch.as_tensor(rate, device=like.device)
        self._uniform = draws.get("uniform")
        if self._uniform is not None:
            self._threshold = rate.to(self._uniform.dtype)
            return
        rounding = torch.rand(like.shape[-1:], dtype=torch.float64, device=like.device)
        self._threshold = torch.ceil(rate.double() * _LEVELS - rounding).to(like.dtype)

    def write(self, rows: slice, out: Tensor) -> Tensor:
        """Draw for ``rows`` of the matrix into ``out``, ``[n, C]``, contiguous; returns it."""
        if self._uniform is not None:
            return out.copy_(self._uniform[rows] < self._threshold)
        bits = torch.empty(out.numel() // 8 + 1, dtype=torch.int64, device=out.device).random_(-(2**63), None)
        out.copy_(bits.view(torch.uint8)[: out.numel()].view_as(out))
        return torch.lt(out, self._threshold, out=out)


def drawn_below(rate: Tensor | float, draws: Draws, out: Tensor) -> Tensor:
    """All rows of :class:`DrawnBelow` at once, into ``out``, ``[N, C]``, contiguous; returns it."""
    drawn = DrawnBelow(rate, draws, out)
    for rows in row_blocks(out):
        drawn.write(rows, out[rows])
    return out


def set_own(values: Tensor, labels: Tensor, own: Tensor | float) -> Tensor:
    """Write ``own`` (``[N, 1]`` or a number) into each row's own column of ``[N, K]``, in place; not where it has none.

    Args:
        values: ``[N, K]``.
        labels: ``[N]`` int64 columns, K for none.
        own: what to write.
    """
    column = labels.clamp(max=values.shape[1] - 1)[:, None]
    has_own = (labels < values.shape[1])[:, None]
    return values.scatter_(1, column, torch.where(has_own, own, values.gather(1, column)))
