"""What losses share between the processes of a run."""

from __future__ import annotations

import torch
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


def rows_of_all_ranks(values: Tensor) -> Tensor:
    """``[N, ...]`` rows, N of each process, to those of all processes one after the other, identical on each.

    Every rank must call it the same number of times, also without rows. Constants come back: nothing is differentiated.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return values.detach()
    counts = values.new_zeros(dist.get_world_size(), dtype=torch.int64)
    counts[dist.get_rank()] = len(values)
    dist.all_reduce(counts)
    if not counts.any():
        return values.detach()
    own = values.new_zeros((int(counts.max()), *values.shape[1:]))  # all send equally many rows
    own[: len(values)] = values.detach()
    padded = [torch.empty_like(own) for _ in counts]
    dist.all_gather(padded, own)
    return torch.cat([rows[:count] for rows, count in zip(padded, counts.tolist(), strict=True)])
