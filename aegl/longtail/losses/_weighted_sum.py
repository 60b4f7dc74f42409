"""A weighted sum of element-wise losses with its gradient, computed together, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from aegl.longtail.losses._blocks import row_blocks

Columns = slice | Tensor
"""Where a block's elements lie: all columns, or ``[n, 1]`` int64 with one column for each row."""

RowWeights = Callable[[slice], Tensor]
"""Some of the rows to their ``[n, C]`` weights, so that all ``[N, C]`` need never exist at once."""


@dataclass(frozen=True)
class ScaledMask:
    """:data:`RowWeights` that are a mask times a factor for each class: how many are not zero is the sum of the mask.

    Args:
        mask: some of the rows to ``[n, C]``, 0 or 1, which may be overwritten.
        factor: ``[C]``, positive, in the dtype of the mask.
    """

    mask: RowWeights
    factor: Tensor

    def __call__(self, rows: slice) -> Tensor:
        return self.mask(rows).mul_(self.factor)


PlainForm = Callable[[Tensor, Tensor], Tensor]
"""``[n, K]`` logits and ``[n, K]`` bool targets to ``[n, K]`` losses, in operations that autograd knows."""


class ClosedForm(Protocol):
    """An element-wise loss whose derivative is written down."""

    def terms(self, logits: Tensor, probabilities: Tensor, positive: bool, columns: Columns) -> tuple[Tensor, Tensor]:
        """Losses of elements and their derivatives by the logits. Runs without gradient.

        Args:
            logits: ``[n, k]``.
            probabilities: ``[n, k]``, the activation of the logits.
            positive: the target of all these elements.
            columns: where they lie, for constants that each class has one of.

        Returns:
            Two ``[n, k]`` tensors. The first is overwritten afterwards, the second may be ``probabilities``.
        """
        ...


def weighted_sum(
    logits: Tensor,
    probabilities: Tensor,
    labels: Tensor,
    form: ClosedForm | PlainForm,
    weights: Tensor | RowWeights | None = None,
    extra_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``sum_ri w_ri loss(z_ri, t_ri)`` for constant weights and at most one positive term in a row.

    Beside its arguments it needs no ``[N, K]`` buffer: the gradient takes the place of the probabilities. Nothing is
    read back from the device. The sum can be differentiated once.

    Args:
        logits: ``[N, K]``, float32 or float64.
        probabilities: ``[N, K]``, the activation of the logits, contiguous; overwritten.
        labels: ``[N]`` int64, the column of the positive term; K for a row without.
        form: of the losses; from a plain form autograd takes the derivatives.
        weights: ``[N, C]`` of the first C <= K columns, ``[N, 1]`` if those of a row are equal; None for 1 everywhere.
            A function is called once for each block of rows, in their order, while their probabilities are what they
            were.
        extra_weights: ``[N, K - C]`` of the other columns, where there are weights and such columns.

    Returns:
        The sum, and ``[N, K]`` ``w_ri dloss/dz_ri``, a constant.
    """
    with torch.no_grad():
        total = _total(logits.detach(), probabilities, labels, form, weights, extra_weights)
    return _Known.apply(logits, total, probabilities), probabilities


def _total(
    logits: Tensor,
    probabilities: Tensor,
    labels: Tensor,
    form: ClosedForm | PlainForm,
    weights: Tensor | RowWeights | None,
    extra_weights: Tensor | None,
) -> Tensor:
    """The sum; leaves the gradient in ``probabilities``."""
    total = logits.new_zeros(())
    own = None if callable(form) else _own_terms(form, logits, probabilities, labels)
    for rows in row_blocks(logits):
        z, gradient = logits[rows], probabilities[rows]
        weight = weights(rows) if callable(weights) else None if weights is None else weights[rows]
        if callable(form):
            losses, slopes = _differentiated(form, z, labels[rows])
        else:
            assert own is not None
            losses, slopes = form.terms(z, gradient, False, slice(None))
            column = own.column[rows]
            losses.scatter_(1, column, own.losses[rows])
            slopes.scatter_(1, column, own.slopes[rows])
        total += _weigh(losses, slopes, weight, None if extra_weights is None else extra_weights[rows], gradient)
    return total


class _Known(torch.autograd.Function):
    """A value whose gradient by the logits was computed with it."""

    @staticmethod
    def forward(logits: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return grad_output * gradient, None, None


class _Own(NamedTuple):
    """One element of each row, ``[N, 1]`` each: its positive term, or any negative one where it has none."""

    column: Tensor
    losses: Tensor
    slopes: Tensor


def _own_terms(form: ClosedForm, logits: Tensor, probabilities: Tensor, labels: Tensor) -> _Own:
    column = labels.clamp(max=logits.shape[1] - 1)[:, None]
    is_positive = labels[:, None] == column
    here = logits.gather(1, column), probabilities.gather(1, column)
    positive, negative = (form.terms(*here, kind, column) for kind in (True, False))
    return _Own(column, *(torch.where(is_positive, *pair) for pair in zip(positive, negative, strict=True)))


def _differentiated(form: PlainForm, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    targets = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        losses = form(leaf, targets)
        (slopes,) = torch.autograd.grad(losses.sum(), leaf)
    return losses.detach(), slopes


def _weigh(
    losses: Tensor, slopes: Tensor, weight: Tensor | None, extra_weight: Tensor | None, gradient: Tensor
) -> Tensor:
    """The block's share of the sum; writes its gradient. ``slopes`` may be ``gradient``."""
    if weight is None:
        if slopes is not gradient:
            gradient.copy_(slopes)
        return losses.sum()
    if extra_weight is None:
        torch.mul(slopes, weight, out=gradient)
        return losses.mul_(weight).sum()
    columns = weight.shape[1]
    for part, factor in ((slice(0, columns), weight), (slice(columns, None), extra_weight)):
        losses[:, part].mul_(factor)
        torch.mul(slopes[:, part], factor, out=gradient[:, part])
    return losses.sum()
