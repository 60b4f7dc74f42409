"""How the detector's two custom operators are written in standard ONNX operators.

The functions are traced by the exporter: tensors arrive as graph values, everything else as plain Python values. No
tensor in them can be empty where an operator would fail on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnxscript import opset18 as op

from aegl.models.ops import NMS_STEP

_GRID = 36
"""Columns of the grid on which groups are laid out: the classes of LVIS fill a square."""


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The exporter's table: operator to its ONNX form."""
    operators = torch.ops.aegl
    return {
        operators.nms_padded.default: nms_padded_onnx,
        operators.roi_align_levels.default: roi_align_levels_onnx,
    }


def nms_padded_onnx(boxes: Any, scores: Any, groups: Any, iou_threshold: float, max_out: int) -> tuple[Any, Any]:
    """``NonMaxSuppression`` over boxes moved apart, its ``[n, 3]`` selections scattered into ``[B, max_out]``."""
    selected = op.NonMaxSuppression(
        _apart(boxes, groups),
        op.Unsqueeze(scores, _ints(1)),
        _ints(max_out),
        _floats(iou_threshold),
        # Padding scores are negative and real ones are not; the comparison is strict.
        _floats(-0.5),
    )
    image = op.Gather(selected, _int(0), axis=1)
    box = op.Gather(selected, _int(2), axis=1)
    batch = op.Shape(scores, start=0, end=1)
    images = op.Range(_int(0), op.Squeeze(batch), _int(1))
    of_image = op.Equal(op.Unsqueeze(images, _ints(1)), op.Unsqueeze(image, _ints(0)))
    count = op.ReduceSum(op.Cast(of_image, to=onnx.TensorProto.INT64), _ints(1), keepdims=0)
    # Selections come image by image and by falling score: the rank within the image follows from the counts before.
    first = op.CumSum(count, _int(0), exclusive=1)
    place = op.Range(_int(0), op.Squeeze(op.Shape(image)), _int(1))
    rank = op.Sub(place, op.Gather(first, image))
    cells = op.Concat(op.Unsqueeze(image, _ints(1)), op.Unsqueeze(rank, _ints(1)), axis=1)
    blank = op.Expand(_int(0), op.Concat(batch, _ints(max_out), axis=0))
    indices = op.ScatterND(blank, cells, box)
    ranks = _constant(np.arange(max_out, dtype=np.int64))
    valid = op.Less(op.Unsqueeze(ranks, _ints(0)), op.Unsqueeze(count, _ints(1)))
    return indices, valid


def roi_align_levels_onnx(
    features: Sequence[Any], rois: Any, levels: Any, strides: Sequence[int], output_size: int, sampling_ratio: int
) -> Any:
    """One ``RoiAlign`` per level on its own rows, scattered back; a dummy row keeps every level from being empty."""
    number = op.Shape(rois, start=0, end=1)
    # Row R stands for nothing: every level pools it, and it is cut off at the end.
    padded = op.Concat(rois, _constant(np.zeros((1, 5), dtype=np.float32)), axis=0)
    channels = op.Shape(features[0], start=1, end=2)
    rows = op.Add(number, _ints(1))
    shape = op.Concat(rows, channels, _ints(output_size), _ints(output_size), axis=0)
    result = op.Expand(_constant(np.float32(0)), shape)
    for level, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        mine = op.Squeeze(op.NonZero(op.Equal(levels, _int(level))), _ints(0))
        mine = op.Concat(mine, number, axis=0)
        chosen = op.Gather(padded, mine, axis=0)
        index = op.Cast(op.Gather(chosen, _int(0), axis=1), to=onnx.TensorProto.INT64)
        pooled = op.RoiAlign(
            feature,
            op.Slice(chosen, _ints(1), _ints(5), _ints(1)),
            index,
            coordinate_transformation_mode="half_pixel",
            output_height=output_size,
            output_width=output_size,
            sampling_ratio=sampling_ratio,
            spatial_scale=1.0 / stride,
        )
        result = op.ScatterND(result, op.Unsqueeze(mine, _ints(1)), pooled)
    return op.Slice(result, _ints(0), number, _ints(0))


def _apart(boxes: Any, groups: Any) -> Any:
    """Boxes rounded to ``NMS_STEP`` and those of different groups on different cells of a grid around the origin.

    In float32 the move is exact while coordinates stay below ``2**24 * NMS_STEP``, that is for the classes of LVIS on
    images of up to 1800 pixels. In a row instead of a grid, they would be far beyond.
    """
    steps = _constant(np.float32(1 / NMS_STEP))
    rounded = op.Div(op.Round(op.Mul(boxes, steps)), steps)
    reach = op.Add(op.Ceil(op.ReduceMax(boxes, keepdims=0)), _constant(np.float32(1)))
    middle = _int(_GRID // 2)
    column = op.Sub(op.Mod(groups, _int(_GRID)), middle)
    row = op.Sub(op.Div(groups, _int(_GRID)), middle)
    cell = op.Concat(*(op.Unsqueeze(part, _ints(2)) for part in (column, row, column, row)), axis=2)
    return op.Add(rounded, op.Mul(op.Cast(cell, to=onnx.TensorProto.FLOAT), reach))


def _constant(values: Any) -> Any:
    return op.Constant(value=onnx.numpy_helper.from_array(np.asarray(values)))


def _int(value: int) -> Any:
    return _constant(np.int64(value))


def _ints(*values: int) -> Any:
    return _constant(np.asarray(values, dtype=np.int64))


def _floats(*values: float) -> Any:
    return _constant(np.asarray(values, dtype=np.float32))
