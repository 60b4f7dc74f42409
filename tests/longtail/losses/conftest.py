"""What the tests of the losses against golden vectors share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from aegl.longtail.base import ClassificationLoss
from aegl.longtail.statistics import ClassStatistics


@pytest.fixture(scope="session")
def stats_of() -> Callable[[dict[str, np.ndarray]], ClassStatistics]:
    """The statistics that golden vectors were made with."""

    def make(data: dict[str, np.ndarray]) -> ClassStatistics:
        instances = data["instance_counts"]
        return ClassStatistics(
            instances,
            data.get("image_counts", instances),
            int(data.get("num_train_images", 56740)),
            data.get("freq_group", np.full(len(instances), 2)),
        )

    return make


@pytest.fixture(scope="session")
def evaluate() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """A loss's terms, summed, and the gradient with respect to its logits."""

    def run(loss: ClassificationLoss, logits: Any, labels: Any, **draws: Any) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = torch.as_tensor(logits).detach().clone().requires_grad_()
        injected = {name: torch.as_tensor(value) for name, value in draws.items()}
        total = torch.stack(list(loss(leaf, torch.as_tensor(labels), draws=injected).values())).sum()
        (grad,) = torch.autograd.grad(total, leaf)
        return total.detach(), grad

    return run


@pytest.fixture(scope="session")
def assert_golden(evaluate: Any) -> Callable[..., None]:
    """Loss and gradient against a golden vector: float64 to ``rtol``, float32 to 1e-5."""

    def check(
        make: Callable[[], ClassificationLoss],
        logits: Any,
        labels: Any,
        value: Any,
        grad: Any,
        rtol: float,
        **draws: Any,
    ) -> None:
        for dtype, tolerance in ((torch.float64, rtol), (torch.float32, 1e-5)):
            got, got_grad = evaluate(make(), torch.as_tensor(logits, dtype=dtype), labels, **draws)
            assert got.dtype == dtype
            np.testing.assert_allclose(got, value, rtol=tolerance)
            np.testing.assert_allclose(got_grad, grad, rtol=tolerance, atol=tolerance * np.abs(grad).max())

    return check
