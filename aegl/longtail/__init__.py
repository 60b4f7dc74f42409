"""Long-tail methods: losses, samplers and calibration. Knows tensors and class statistics, nothing of models or data files."""
