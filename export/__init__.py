"""ONNX export and its proof."""
