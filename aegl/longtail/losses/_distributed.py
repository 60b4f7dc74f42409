"""What losses share between the processes of a run."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum of ``values`` over all processes, identical on each; ``values`` itself when there is only one process.

    Every rank must call it the same number of times. Sum counts, never ratios: a mean of ratios is another number.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return values
    total = values.clone()
    dist.all_reduce(total, op=dist.ReduceOp.SUM)
    return total
