"""Models of Triton's Python backend, copied into a model repository as they are; they need no PyTorch."""
