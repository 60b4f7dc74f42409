"""NorCal: scores of a trained softmax, divided by a power of how often each class occurs (Pan et al., NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from aegl.errors import ConfigError
from aegl.longtail.base import Calibrator, ClassificationLoss
from aegl.longtail.losses._elementwise import at_least_float32
from aegl.longtail.statistics import ClassStatistics


class NorCal(Calibrator):
    """``s_i = a_i e^{z_i} / (sum_j a_j e^{z_j} + e^{z_background})``, ``a_i`` falling with the images of class i.

    With the defaults this is the loss's own softmax of ``z_i + log a_i``, the logits of all other columns (background,
    objectness) as they are. ``a_i = m_i^-gamma`` or, for ``factor=cb``, ``(1 - beta) / (1 - beta^m_i)``, where ``m_i``
    are the training images with class i, at least 1.

    ``applied_to=probs`` multiplies the finished scores instead, and with ``renormalize`` divides them by their new sum,
    background included: the same for a plain softmax. ``applied_to=logits`` multiplies the logits before the softmax.
    Without ``renormalize``, ``exps`` are bare ``a_i e^{z_i}`` as in the authors' code, which may exceed 1.
    """

    factor: Tensor
    """``[C]`` float32, in (0, 1]."""

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        gamma: Annotated[
            float, Field(ge=0, description="Exponent of the image counts: the strength, to be tuned; 0: none.")
        ] = 0.6,
        factor: Annotated[
            Literal["gamma", "cb"], Field(description="Factor of a class: a power of its images, or class-balanced.")
        ] = "gamma",
        beta: Annotated[float, Field(ge=0, lt=1, description="Base of the class-balanced factor.")] = 0.999,
        applied_to: Annotated[
            Literal["exps", "probs", "logits"], Field(description="What the factor multiplies.")
        ] = "exps",
        renormalize: Annotated[
            bool, Field(description="Let classes and background add up to 1 again; no effect on logits.")
        ] = True,
    ) -> None:
        super().__init__(stats)
        self.applied_to = applied_to
        self.renormalize = renormalize
        images = torch.as_tensor(stats.image_counts, dtype=torch.float64).clamp(min=1)
        values = images**-gamma if factor == "gamma" else (1 - beta) / (1 - beta**images)
        # Follows from the statistics: no part of a checkpoint.
        self.register_buffer("factor", values.float(), persistent=False)

    def check(self, loss: ClassificationLoss) -> None:
        """See :meth:`Calibrator.check`; found out by trying the loss's scores on some logits."""
        probes = 3 * torch.randn(64, loss.num_logits, generator=torch.Generator().manual_seed(0))
        scores = loss.scores(probes)
        add_up = bool((scores.sum(-1) < 1 + 1e-3).all())
        if self.applied_to == "probs":
            usable = add_up or not self.renormalize
        else:
            odds = scores.log() - probes[:, : self.num_classes]
            usable = torch.allclose(odds, odds[:, :1], atol=1e-3)
        if not usable:
            needed = "calibrate.applied_to=probs" + ("" if add_up else " calibrate.renormalize=false")
            raise ConfigError(
                f"the scores of this loss are no softmax of its logits and background; norcal needs {needed} here"
            )

    def forward(self, logits: Tensor, scores: Callable[[Tensor], Tensor]) -> Tensor:
        """See :meth:`Calibrator.forward`."""
        logits = at_least_float32(logits)
        others = logits.shape[-1] - self.num_classes
        if self.applied_to == "logits":
            return scores(logits * F.pad(self.factor, (0, others), value=1.0))
        if self.applied_to == "exps":
            shifted = logits + F.pad(self.factor.log(), (0, others))
            return scores(shifted) if self.renormalize else shifted[..., : self.num_classes].exp()
        plain = scores(logits)
        calibrated = plain * self.factor
        if not self.renormalize:
            return calibrated
        background = (1 - plain.sum(-1, keepdim=True)).clamp(min=0)
        return calibrated / (calibrated.sum(-1, keepdim=True) + background)
