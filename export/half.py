"""A detector with its layers in half precision, to be traced: what decides between boxes stays in float32."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from aegl.models.mask_rcnn import MaskRCNN


def in_half(model: MaskRCNN) -> MaskRCNN:
    """A copy that computes backbone, pyramid, RPN, shared box layers and mask convolutions in float16.

    Normalisation of the images, anchors, boxes, RoIAlign, NMS, the last layers of the box head (a norm over their
    features overflows float16), scores and the selection are in float32, as are input and outputs.
    """
    half = copy.deepcopy(model)
    head, masks = half.box_head, half.mask_head
    rpn = half.rpn
    layers = [half.backbone, half.neck, rpn.conv, rpn.objectness, rpn.deltas, head.fc1, head.fc2]
    for layer in (*layers, *masks.convs, masks.deconv):
        layer.half()
        layer.register_forward_pre_hook(_casting(torch.float16))
    for layer in (half.box_pool, half.mask_pool, head.classifier, head.regressor):
        layer.register_forward_pre_hook(_casting(torch.float32))
    return half


def _casting(dtype: torch.dtype) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A hook that gives a module its floating tensors, in lists too, as ``dtype``."""

    def cast(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(dtype)
        return [cast(item) for item in value] if isinstance(value, list | tuple) else value

    return lambda _, inputs: tuple(cast(value) for value in inputs)
