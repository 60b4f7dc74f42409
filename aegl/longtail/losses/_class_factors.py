"""Constants per class that losses derive from the counts of the training set."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from aegl.longtail.statistics import ClassStatistics

LowFrequency = Annotated[
    Literal["groups", "max_images", "max_instances", "image_share"],
    Field(description="Low-frequency classes: the lowest bands, or by a limit on images, instances or image share."),
]
LowFrequencyMax = Annotated[
    int, Field(ge=0, description="Largest count of a low-frequency class under max_images or max_instances.")
]
LowFrequencyShare = Annotated[
    float, Field(gt=0, le=1, description="Share of all images below which a class is low-frequency under image_share.")
]


def weight_factors(stats: ClassStatistics, gamma: float, mean_one: bool) -> Tensor:
    """``[C]`` float64 ``WF_i = (1 - gamma) / (1 - gamma^n_i)``, ``n_i`` at least 1; optionally divided by its mean."""
    instances = torch.as_tensor(stats.instance_counts, dtype=torch.float64).clamp(min=1)
    # expm1 keeps the digits of 1 - gamma^n for gamma near 1; log(0) = -inf gives factor 1, as it should.
    factor = (1 - gamma) / -torch.expm1(instances * torch.tensor(gamma, dtype=torch.float64).log())
    return factor / factor.mean() if mean_one else factor


def low_frequency_classes(stats: ClassStatistics, rule: LowFrequency, largest: int, share: float) -> Tensor:
    """``[C]`` bool, true for low-frequency classes.

    Args:
        stats: counts of the training set.
        rule: by band; by a largest count of images or instances; or by ``m_i / num_images < share``.
        largest: largest count under ``max_images`` and ``max_instances``.
        share: the authors' lambda of EQL, DropLoss and GOL: 1.77e-3 on LVIS v0.5 and 1.1e-3 on v1.
    """
    if rule == "groups":
        return torch.as_tensor(stats.low_frequency)
    if rule == "image_share":
        return torch.as_tensor(stats.image_counts < share * stats.num_images)
    counts = stats.image_counts if rule == "max_images" else stats.instance_counts
    return torch.as_tensor(counts) <= largest
