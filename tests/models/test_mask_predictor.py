"""The cosine mask predictor: the golden vector, one class at a time, and what it does where there is no feature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aegl.models.mask_head import CosineMaskPredictor, MaskHead, MaskPredictor

DTYPES = pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["float64", "float32"]
)


@pytest.fixture
def vector(oracles: Path) -> dict[str, np.ndarray]:
    with np.load(oracles / "normed_layers.npz") as archive:
        return {key: archive[key] for key in archive.files}


def of_vector(vector: dict[str, np.ndarray], dtype: torch.dtype) -> tuple[CosineMaskPredictor, Tensor]:
    layer = CosineMaskPredictor(8, 30, temperature=float(vector["temperature"])).to(dtype)
    layer.load_state_dict({name: torch.as_tensor(vector[f"conv_{name}"]) for name in ("weight", "bias")})
    return layer, torch.as_tensor(vector["conv_x"], dtype=dtype)


@DTYPES
def test_golden_vector(vector: dict[str, np.ndarray], dtype: torch.dtype, rtol: float) -> None:
    layer, features = of_vector(vector, dtype)
    np.testing.assert_allclose(layer(features).detach(), vector["conv_y"], rtol=rtol, atol=rtol)


@DTYPES
def test_one_class_of_the_golden_vector(vector: dict[str, np.ndarray], dtype: torch.dtype, rtol: float) -> None:
    layer, features = of_vector(vector, dtype)
    for first in range(30):
        classes = [first, 29 - first]
        expected = vector["conv_y"][[0, 1], classes]
        found = layer.row(features, torch.tensor(classes)).detach()
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("kind", [MaskPredictor, CosineMaskPredictor])
def test_a_row_is_that_channel_of_all(kind: Any) -> None:
    layer = kind(6, 5)
    features, rows = torch.rand(4, 6, 3, 3), torch.tensor([4, 0, 2, 2])
    torch.testing.assert_close(layer.row(features, rows), layer(features)[torch.arange(4), rows])


def test_the_scale_of_features_and_weights_does_not_matter() -> None:
    layer, features, rows = CosineMaskPredictor(6, 5), torch.rand(4, 6, 3, 3), torch.tensor([4, 0, 2, 2])
    before = layer.row(features, rows)
    with torch.no_grad():
        layer.weight.mul_(7.0)
    torch.testing.assert_close(layer.row(100 * features, rows), before, rtol=1e-3, atol=1e-3)
    assert before.abs().max() <= 20 + layer.bias.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_pixel_without_features_gives_the_bias_and_no_wild_gradient(dtype: torch.dtype) -> None:
    """As large a gradient as loss scaling makes of it."""
    layer = CosineMaskPredictor(6, 5)
    features = torch.rand(2, 6, 3, 3)
    features[:, :, 1, 1] = 0
    features = features.to(dtype).requires_grad_()
    logits = layer.row(features, torch.tensor([3, 1]))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits[:, 1, 1], layer.bias[[3, 1]])
    (10 * logits).sum().backward()
    assert features.grad is not None and features.grad.isfinite().all()
    assert layer.weight.grad is not None and layer.weight.grad.isfinite().all()


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_the_head_takes_either_predictor_with_the_same_weights(class_agnostic: bool) -> None:
    heads = [
        MaskHead(4, 6, 1, 5, class_agnostic=class_agnostic, predictor=kind, temperature=9.0)  # type: ignore[arg-type]
        for kind in ("linear", "cosine")
    ]
    heads[1].load_state_dict(heads[0].state_dict())
    pooled, labels = torch.rand(3, 4, 7, 7), torch.tensor([4, 0, 2])
    linear, cosine = (head(pooled, labels) for head in heads)
    assert linear.shape == cosine.shape == (3, 14, 14)
    assert cosine.abs().max() <= 9 and not torch.allclose(linear, cosine)


def test_the_configuration_chooses_it(tiny_model: Any, images: Tensor) -> None:
    model = tiny_model(mask={"predictor": "cosine", "temperature": 5.0})
    assert isinstance(model.mask_head.predictor, CosineMaskPredictor)
    assert model.mask_head.predictor.temperature == 5.0
    assert model.eval()(images).masks.isfinite().all()
    assert type(tiny_model().mask_head.predictor) is MaskPredictor
