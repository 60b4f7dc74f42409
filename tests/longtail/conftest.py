"""Small class statistics and evaluation helpers shared by the tests of the long-tail losses."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from aegl.longtail.base import ClassificationLoss
from aegl.longtail.statistics import ClassStatistics


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_stats() -> Callable[..., ClassStatistics]:
    """Statistics from instance counts and bands (0 and 1 low-frequency, 2 frequent)."""

    def make(instances, bands, images=None) -> ClassStatistics:
        instances = np.asarray(instances, dtype=np.int64)
        images = instances if images is None else np.asarray(images, dtype=np.int64)
        return ClassStatistics(instances, images, int(images.sum()), np.asarray(bands, dtype=np.int64))

    return make


@pytest.fixture(scope="session")
def stats(make_stats) -> ClassStatistics:
    """Six classes: rare, rare and absent, common, common, frequent, frequent."""
    return make_stats([2, 0, 30, 90, 500, 5000], [0, 0, 1, 1, 2, 2], [2, 0, 20, 60, 150, 3000])


@pytest.fixture(scope="session")
def batch() -> SimpleNamespace:
    """40 rows over the six classes of ``stats`` (background 6), with uniform draws; float64."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 7, (40,), generator=generator)
    labels[:20] = 6
    return SimpleNamespace(
        logits=3 * torch.randn(40, 6, generator=generator, dtype=torch.float64),
        labels=labels,
        uniform=torch.rand(40, 6, generator=generator, dtype=torch.float64),
    )


@pytest.fixture(scope="session")
def value_and_grad() -> Callable[..., tuple[float, Tensor]]:
    """Sum of a loss's terms and its gradient with respect to the logits."""

    def evaluate(loss: ClassificationLoss, logits, labels, uniform=None) -> tuple[float, Tensor]:
        leaf = torch.as_tensor(logits).detach().clone().requires_grad_()
        draws = None if uniform is None else {"uniform": torch.as_tensor(uniform)}
        total = torch.stack(list(loss(leaf, torch.as_tensor(labels), draws=draws).values())).sum()
        (grad,) = torch.autograd.grad(total, leaf)
        return total.item(), grad

    return evaluate


@pytest.fixture(scope="session")
def element_weights() -> Callable[..., Tensor]:
    """The ``[N, C]`` weights of an element-wise loss for given logits."""

    def evaluate(loss, logits, labels, uniform=None) -> Tensor:
        logits, labels = torch.as_tensor(logits), torch.as_tensor(labels)
        probabilities = loss.activation.probability(logits[:, : loss.num_classes])
        draws = {} if uniform is None else {"uniform": torch.as_tensor(uniform)}
        weights = loss.element_weights(probabilities, labels, draws)
        return weights(slice(None)) if callable(weights) else weights

    return evaluate


@pytest.fixture(scope="session")
def golden(oracles) -> Callable[[str], dict[str, np.ndarray]]:
    """The arrays of a golden vector by its name."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(oracles / f"{name}.npz") as archive:
            return {key: archive[key] for key in archive.files}

    return load


@pytest.fixture(params=["empty", "no_foreground", "no_background", "huge", "all_wrong", "hidden"])
def edge_batch(request, stats) -> Callable[[ClassificationLoss, torch.dtype], tuple[Tensor, Tensor]]:
    """Batches at the edge for a loss over the six classes of ``stats``: logits (a leaf) and labels."""

    def make(loss: ClassificationLoss, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        rows = 0 if request.param == "empty" else 14
        labels = torch.arange(rows) % 7
        if request.param == "no_foreground":
            labels = torch.full((rows,), 6)
        if request.param == "no_background":
            labels = labels % 6
        logits = torch.randn(rows, loss.num_logits, generator=torch.Generator().manual_seed(0))
        if request.param == "huge":
            logits = 1000 * logits.sign()
        if request.param == "all_wrong":
            logits = 100 * (torch.arange(loss.num_logits) - labels[:, None] % loss.num_logits).abs().float()
        if request.param == "hidden":
            logits = loss.hide_unverified(logits, labels, torch.zeros(rows, 6, dtype=torch.bool))
        return logits.to(dtype).requires_grad_(), labels

    return make
