"""ONNX export, its proof, and the one place that opens ONNX Runtime sessions."""
