"""RoIAlign as sums of weighted pixels against torchvision's operator."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align

from aegl.models.sparse_roi_align import sparse_roi_align

STRIDES = [4, 8]


def pyramid(seed: int, images: int, rows: int, columns: int) -> list[Tensor]:
    """Two levels with gradient; the second is half as large, rounded up."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(rows, columns), (-(-rows // 2), -(-columns // 2))]
    return [torch.randn(images, 5, *size, generator=generator).requires_grad_() for size in sizes]


def regions(seed: int, number: int, images: int, height: int, width: int) -> Tensor:
    """Inside, across the borders and outside of the image, long, and empty."""
    generator = torch.Generator().manual_seed(seed)
    corner = (torch.rand(number, 2, generator=generator) * 1.6 - 0.3) * torch.tensor([width, height])
    scale = torch.tensor([0.0, 0.3, 3.0, 20.0, 90.0])
    size = scale[torch.randint(0, len(scale), (number, 2), generator=generator)]
    size = size * (0.5 + torch.rand(number, 2, generator=generator))
    index = torch.randint(0, images, (number, 1), generator=generator)
    return torch.cat([index, corner, corner + size], dim=1)


def reference(features: list[Tensor], rois: Tensor, levels: Tensor, size: int, ratio: int) -> Tensor:
    each = [
        roi_align(features[level], rois[row : row + 1], size, 1 / STRIDES[level], ratio, aligned=True)
        for row, level in enumerate(levels.tolist())
    ]
    return torch.cat(each)


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**32 - 1),
    images=st.integers(1, 3),
    number=st.integers(1, 12),
    rows=st.integers(1, 14),
    columns=st.integers(1, 14),
    size=st.integers(1, 7),
    ratio=st.integers(0, 3),
)
def test_values_and_gradients_are_torchvisions(
    seed: int, images: int, number: int, rows: int, columns: int, size: int, ratio: int
) -> None:
    features = pyramid(seed, images, rows, columns)
    rois = regions(seed, number, images, 4 * rows, 4 * columns)
    levels = torch.randint(0, 2, (number,), generator=torch.Generator().manual_seed(seed))
    found = sparse_roi_align(features, rois, levels, STRIDES, size, ratio)
    expected = reference(features, rois, levels, size, ratio)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(seed))
    gradients = torch.autograd.grad(found, features, upstream)
    wanted = torch.autograd.grad(expected, features, upstream, materialize_grads=True)
    torch.testing.assert_close(gradients, wanted, atol=1e-4, rtol=1e-4)


def test_without_regions_the_gradient_is_zero() -> None:
    features = pyramid(0, 2, 6, 8)
    pooled = sparse_roi_align(features, torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), STRIDES, 7, 0)
    assert pooled.shape == (0, 5, 7, 7)
    pooled.sum().backward()
    assert all(feature.grad is not None and not feature.grad.any() for feature in features)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_pooled_in_float32(dtype: torch.dtype) -> None:
    features = [feature.detach().to(dtype).requires_grad_() for feature in pyramid(1, 2, 12, 9)]
    rois = regions(1, 8, 2, 48, 36)
    levels = torch.tensor([0, 1] * 4)
    pooled = sparse_roi_align(features, rois, levels, STRIDES, 7, 0)
    assert pooled.dtype == torch.float32
    whole = [feature.detach().float() for feature in features]
    torch.testing.assert_close(pooled, reference(whole, rois, levels, 7, 0), atol=2e-5, rtol=1e-5)
    pooled.sum().backward()
    assert all(feature.grad is not None and feature.grad.dtype == dtype for feature in features)


def test_the_output_is_channels_last() -> None:
    pooled = sparse_roi_align(pyramid(2, 1, 8, 8), regions(2, 4, 1, 32, 32), torch.zeros(4).long(), STRIDES, 7, 0)
    assert pooled.is_contiguous(memory_format=torch.channels_last)


def test_the_same_gradient_every_time() -> None:
    """To the bit: no sum depends on the order in which threads come."""
    features = pyramid(3, 2, 40, 40)
    rois, levels = regions(3, 200, 2, 160, 160), torch.zeros(200, dtype=torch.int64)

    def gradient() -> Tensor:
        (found,) = torch.autograd.grad(
            sparse_roi_align(features, rois, levels, STRIDES, 7, 0).pow(2).sum(), features[0]
        )
        return found

    first = gradient()
    assert all(torch.equal(first, gradient()) for _ in range(3))
