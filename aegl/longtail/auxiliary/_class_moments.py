"""Running mean and variance of each class's features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from aegl.longtail._lazy_state import LazyState


class ClassMoments(LazyState):
    """Running mean and unbiased variance of each class's features, ``[C, F]`` float64; 0 for one that is not seen."""

    def __init__(self, num_classes: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.seen = torch.zeros(num_classes, dtype=torch.bool)
        self.mean = torch.zeros(num_classes, 0, dtype=torch.float64)
        self.variance = torch.zeros(num_classes, 0, dtype=torch.float64)

    def of(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, for features such as ``like``."""
        if self.mean.shape[1] != like.shape[1]:
            self.mean = self.mean.new_zeros(len(self.mean), like.shape[1])
            self.variance = torch.zeros_like(self.mean)
        if self.mean.device != like.device:  # after loading
            self.restore({name: tensor.to(like.device) for name, tensor in self.tensors().items()})
        return self.mean, self.variance

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Take in ``[P, F]`` float64 features. The first ones of a class are taken as they are."""
        mean, variance = self.of(features)
        classes = labels.unique()
        member = (labels == classes[:, None]).double()  # products with it add up in a fixed order, on a GPU too
        count = member.sum(dim=1, keepdim=True)
        new_mean = member @ features / count
        squares = member @ (features - member.T @ new_mean).square()
        share = torch.ones_like(count).masked_fill(self.seen[classes, None], self.momentum)
        mean[classes] = (1 - share) * mean[classes] + share * new_mean
        variance[classes] = (1 - share) * variance[classes] + share * squares / (count - 1).clamp(min=1)
        self.seen[classes] = True

    def tensors(self) -> dict[str, Tensor]:
        return {"seen": self.seen, "mean": self.mean, "variance": self.variance}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.seen, self.mean, self.variance = tensors["seen"], tensors["mean"], tensors["variance"]
