"""Constants per class that losses derive from the counts of the training set."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from aegl.longtail.statistics import ClassStatistics

LowFrequency = Literal["groups", "max_images", "max_instances"]


def weight_factors(stats: ClassStatistics, gamma: float, mean_one: bool) -> Tensor:
    """``[C]`` float64 ``WF_i = (1 - gamma) / (1 - gamma^n_i)``, ``n_i`` at least 1; optionally divided by its mean."""
    instances = torch.as_tensor(stats.instance_counts, dtype=torch.float64).clamp(min=1)
    # expm1 keeps the digits of 1 - gamma^n for gamma near 1; log(0) = -inf gives factor 1, as it should.
    factor = (1 - gamma) / -torch.expm1(instances * torch.tensor(gamma, dtype=torch.float64).log())
    return factor / factor.mean() if mean_one else factor


def low_frequency_classes(stats: ClassStatistics, rule: LowFrequency, largest: int) -> Tensor:
    """``[C]`` bool, true for low-frequency classes: by band, or by a largest count of images or instances."""
    if rule == "groups":
        return torch.as_tensor(stats.low_frequency)
    counts = stats.image_counts if rule == "max_images" else stats.instance_counts
    return torch.as_tensor(counts) <= largest
