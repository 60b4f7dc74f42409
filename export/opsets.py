"""Which ONNX opset to write, from what ONNX Runtime's CUDA provider has kernels for."""

from __future__ import annotations

from aegl.errors import ExportError

DEFAULT_OPSET = 18
"""The lowest opset the exporter writes, and so the one that most releases of ONNX Runtime run on a GPU."""
NEWEST_OPSET = 20
"""Later opsets bring operator versions for which CUDA kernels are missing (TopK-24, RoiAlign-22)."""


def choose_opset(asked: int | None) -> int:
    """The opset to write. Raises :class:`ExportError` for one that cannot be written or would leave the GPU."""
    if asked is None:
        return DEFAULT_OPSET
    if not DEFAULT_OPSET <= asked <= NEWEST_OPSET:
        raise ExportError(
            f"opset={asked}: must be {DEFAULT_OPSET} to {NEWEST_OPSET}; newer ones have operators without CUDA kernels"
        )
    return asked
