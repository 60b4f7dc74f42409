"""What an exported graph takes and gives beyond the model itself: images as they are stored, and masks in three forms.

The forms are changes of the finished ONNX graph: none of them needs to be traced, and the model knows none of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from onnx import TensorProto, helper, parser

from aegl.runtime.graph import INPUT, OUTPUTS

MaskForm = Literal["roi", "paste", "none"]
_CHANNELS_FIRST = "images_channels_first"
_PASTED_AT_ONCE = 50
"""Masks of an image that are pasted together: 50 of 800x1333 take 215 MB before they are cut at the threshold."""
_THRESHOLD = 0.5


@dataclass(frozen=True)
class GraphForm:
    """Inputs and outputs of a file.

    Args:
        masks: ``roi``: ``[B, K, M, M]`` float32 probabilities over each box. ``paste``: ``[B, K, H, W]`` bool over the
            network input, ``K * H * W`` bytes per image, twice that and 215 MB more (at 800x1333) while it runs.
            ``none``: no such output, and nothing of the mask branch in the file.
        preprocess: take ``[B, H, W, 3]`` uint8 instead of ``[B, 3, H, W]`` float32; RGB in both.
    """

    masks: MaskForm = "roi"
    preprocess: bool = False

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(name for name in OUTPUTS if name != "masks" or self.masks != "none")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the file's metadata."""
        layout = "uint8 [batch, height, width, 3]" if self.preprocess else "float32 [batch, 3, height, width]"
        return {"masks": self.masks, "preprocess": self.preprocess, "input": layout, "outputs": list(self.outputs)}


USUAL_FORM = GraphForm()
"""What a file takes and gives where nothing else is asked for."""


def apply_form(proto: Any, form: GraphForm) -> None:
    """Give a graph with the usual input and outputs another form, in place."""
    if form.masks == "paste":
        _paste(proto)
    elif form.masks == "none":
        _without_masks(proto)
    if form.preprocess:
        _take_stored_images(proto)


def prune(graph: Any) -> None:
    """Leave out, in place, what no output depends on."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    _replace(graph.node, reversed(kept))
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in wanted])
    produced = {name for node in graph.node for name in node.output}
    _replace(graph.value_info, [value for value in graph.value_info if value.name in produced])


def _without_masks(proto: Any) -> None:
    _replace(proto.graph.output, [output for output in proto.graph.output if output.name != "masks"])
    prune(proto.graph)


def _take_stored_images(proto: Any) -> None:
    graph = proto.graph
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == INPUT:
                node.input[position] = _CHANNELS_FIRST
    batch, channels, rows, columns = _dims(graph.input[0])
    _replace(graph.input, [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [batch, rows, columns, channels])])
    # Turned while they are bytes, a quarter of the memory traffic.
    turned = helper.make_node("Transpose", [INPUT], [f"{_CHANNELS_FIRST}_uint8"], perm=[0, 3, 1, 2])
    cast = helper.make_node("Cast", turned.output, [_CHANNELS_FIRST], to=TensorProto.FLOAT)
    _replace(graph.node, [turned, cast, *graph.node])


def _paste(proto: Any) -> None:
    """Masks over boxes to masks over the image, by the rule of :func:`aegl.runtime.masks.paste_and_encode`."""
    graph = proto.graph
    (old,) = [output for output in graph.output if output.name == "masks"]
    batch, number, side, _ = _dims(old)
    _, _, rows, columns = _dims(graph.input[0])
    for node in graph.node:
        names = [_over_boxes(name) for name in node.output]
        if names != list(node.output):
            _replace(node.output, names)
        _replace(node.input, [_over_boxes(name) for name in node.input])
    new = helper.make_tensor_value_info("masks", TensorProto.BOOL, [batch, number, rows, columns])
    _replace(graph.output, [new if output is old else output for output in graph.output])
    for place, node in enumerate(_pasting(number, side)):
        node.name = f"paste_{place}"
        graph.node.append(node)


def _over_boxes(name: str) -> str:
    return "masks_over_boxes" if name == "masks" else name


def _pasting(number: int, side: int) -> Any:
    """The nodes. Bilinear interpolation is a product with hat functions along each axis, and those are small."""
    parts = range(0, number, _PASTED_AT_ONCE)
    lines = [
        f"paste_size = Shape <start = 2, end = 4> ({INPUT})",
        "paste_zero = Constant <value = int64 {0}> ()",
        "paste_one = Constant <value = int64 {1}> ()",
        "paste_axis = Constant <value_ints = [1]> ()",
        "paste_last = Constant <value_ints = [-1]> ()",
        "paste_before = Constant <value_ints = [2]> ()",
        "paste_half = Constant <value = float {0.5}> ()",
        "paste_unit = Constant <value = float {1.0}> ()",
        "paste_tiny = Constant <value = float {0.01}> ()",
        f"paste_side = Constant <value = float {{{side}.0}}> ()",
        f"paste_threshold = Constant <value = float {{{_THRESHOLD}}}> ()",
        f"paste_cells = Constant <value_floats = [{', '.join(f'{cell}.5' for cell in range(side))}]> ()",
        "paste_columns_of_cells = Unsqueeze (paste_cells, paste_last)",
        "paste_x1, paste_y1, paste_x2, paste_y2 = Split <axis = 2, num_outputs = 4> (boxes)",
    ]
    for axis, index in (("y", "paste_zero"), ("x", "paste_one")):
        lines += [
            f"paste_length_{axis} = Gather (paste_size, {index})",
            f"paste_range_{axis} = Range (paste_zero, paste_length_{axis}, paste_one)",
            f"paste_pixels_{axis} = Cast <to = {TensorProto.FLOAT}> (paste_range_{axis})",
            f"paste_centres_{axis} = Add (paste_pixels_{axis}, paste_half)",
            f"paste_raw_extent_{axis} = Sub (paste_{axis}2, paste_{axis}1)",
            f"paste_extent_{axis} = Max (paste_raw_extent_{axis}, paste_tiny)",
            f"paste_moved_{axis} = Sub (paste_centres_{axis}, paste_{axis}1)",
            f"paste_relative_{axis} = Div (paste_moved_{axis}, paste_extent_{axis})",
            f"paste_place_{axis} = Mul (paste_relative_{axis}, paste_side)",
        ]
    for axis, unsqueezed, cells in (
        ("y", "paste_last", "paste_cells"),
        ("x", "paste_before", "paste_columns_of_cells"),
    ):
        lines += [
            f"paste_spread_{axis} = Unsqueeze (paste_place_{axis}, {unsqueezed})",
            f"paste_distance_{axis} = Sub (paste_spread_{axis}, {cells})",
            f"paste_far_{axis} = Abs (paste_distance_{axis})",
            f"paste_near_{axis} = Sub (paste_unit, paste_far_{axis})",
            f"paste_hat_{axis} = Relu (paste_near_{axis})",
        ]
    for part, start in enumerate(parts):
        lines += [
            f"paste_start_{part} = Constant <value_ints = [{start}]> ()",
            f"paste_end_{part} = Constant <value_ints = [{min(start + _PASTED_AT_ONCE, number)}]> ()",
        ]
        for name in ("masks_over_boxes", "paste_hat_y", "paste_hat_x"):
            lines.append(f"{name}_{part} = Slice ({name}, paste_start_{part}, paste_end_{part}, paste_axis)")
        lines += [
            f"paste_tall_{part} = MatMul (paste_hat_y_{part}, masks_over_boxes_{part})",
            f"paste_values_{part} = MatMul (paste_tall_{part}, paste_hat_x_{part})",
            f"paste_set_{part} = GreaterOrEqual (paste_values_{part}, paste_threshold)",
        ]
    lines.append(f"masks = Concat <axis = 1> ({', '.join(f'paste_set_{part}' for part in range(len(parts)))})")
    text = "\n".join(lines)
    return parser.parse_graph(
        f"paste (float[B,3,H,W] {INPUT}, float[B,K,4] boxes, float[B,K,M,M] masks_over_boxes) => "
        f"(bool[B,K,H,W] masks) {{\n{text}\n}}"
    ).node


def _dims(value: Any) -> list[Any]:
    """Sizes of an input or output, names where they are free."""
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _replace(field: Any, values: Iterable[Any]) -> None:
    """Give a repeated field other content."""
    kept = list(values)
    del field[:]
    field.extend(kept)
