"""The cosine mask predictor: the golden vector, one class at a time, and what it does where there is no feature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from aegl.models.mask_head import CosineMaskPredictor, Deconvolution, MaskHead, MaskPredictor, as_maps

DTYPES = pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=["float64", "float32"]
)


@pytest.fixture
def vector(oracles: Path) -> dict[str, np.ndarray]:
    with np.load(oracles / "normed_layers.npz") as archive:
        return {key: archive[key] for key in archive.files}


def pixels(maps: Tensor) -> Tensor:
    """``[R, c, H, W]`` to ``[R, H * W, c]``."""
    return maps.flatten(2).transpose(1, 2)


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
        found = layer.row(pixels(features), torch.tensor(classes)).detach()
        np.testing.assert_allclose(found, expected.reshape(2, -1), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("kind", [MaskPredictor, CosineMaskPredictor])
def test_a_row_is_that_channel_of_all(kind: Any) -> None:
    layer = kind(6, 5)
    features, rows = torch.rand(4, 6, 3, 3), torch.tensor([4, 0, 2, 2])
    torch.testing.assert_close(layer.row(pixels(features), rows), layer(features)[torch.arange(4), rows].flatten(1))


def test_the_scale_of_features_and_weights_does_not_matter() -> None:
    layer, features, rows = CosineMaskPredictor(6, 5), torch.rand(4, 9, 6), torch.tensor([4, 0, 2, 2])
    before = layer.row(features, rows)
    with torch.no_grad():
        layer.weight.mul_(7.0)
    torch.testing.assert_close(layer.row(100 * features, rows), before, rtol=1e-3, atol=1e-3)
    assert before.abs().max() <= 20 + layer.bias.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_pixel_without_features_gives_the_bias_and_no_wild_gradient(dtype: torch.dtype) -> None:
    """As large a gradient as loss scaling makes of it."""
    layer = CosineMaskPredictor(6, 5)
    features = torch.rand(2, 9, 6)
    features[:, 4] = 0
    features = features.to(dtype).requires_grad_()
    logits = layer.row(features, torch.tensor([3, 1]))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits[:, 4], layer.bias[[3, 1]])
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


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_deconvolution_is_that_of_pytorch(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    ours, theirs = Deconvolution(4, 6), nn.ConvTranspose2d(4, 6, 2, stride=2)
    ours.load_state_dict(theirs.state_dict())
    hidden = torch.randn(3, 4, 5, 5).contiguous(memory_format=layout).requires_grad_()
    found = ours(hidden)
    maps = torch.stack([as_maps(found[:, :, channel], 5) for channel in range(6)], 1)
    torch.testing.assert_close(maps, theirs(hidden))
    weight = torch.randn_like(maps)
    gradients = torch.autograd.grad((maps * weight).sum(), [hidden, *ours.parameters()])
    wanted = torch.autograd.grad((theirs(hidden) * weight).sum(), [hidden, *theirs.parameters()])
    torch.testing.assert_close(gradients, wanted)
