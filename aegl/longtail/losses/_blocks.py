"""Working through the rows of a matrix a block at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# What a block needs on the way stays in a CPU's last cache, and calls are few; on a GPU launches cost more than memory.
_CPU_BLOCK = 2**18
_GPU_BLOCK = 2**23


def row_blocks(matrix: Tensor) -> Iterator[slice]:
    """Slices of the rows of an ``[N, K]`` matrix, small enough for what is computed of each to be no burden."""
    elements = _CPU_BLOCK * torch.get_num_threads() if matrix.device.type == "cpu" else _GPU_BLOCK
    size = max(1, elements // max(1, matrix.shape[1]))
    for start in range(0, len(matrix), size):
        yield slice(start, start + size)
