"""Exported models without PyTorch: NumPy, Pillow and ONNX Runtime are all it imports."""

from aegl.runtime.results import Detected
from aegl.runtime.runtime import Runtime

__all__ = ["Detected", "Runtime"]
