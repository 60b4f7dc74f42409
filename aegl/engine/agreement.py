"""What processes agree on after every step, without one of them waiting for a device or for the slowest process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor

from aegl.engine.distributed import World


class Agreement:
    """The largest of some numbers over the processes, one call late.

    The numbers travel over the network of the CPUs while the next step runs: a GPU is neither asked nor held up. A
    process alone agrees with itself at once.

    Args:
        world: the processes; making an agreement is collective.
    """

    def __init__(self, world: World) -> None:
        self._group = cast(dist.ProcessGroup, dist.new_group(backend="gloo")) if world.size > 1 else None
        self._sent: Tensor | None = None
        self._work: dist.Work | None = None

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """The largest of what the processes gave in the call before (zeros in the first one). Collective.

        Args:
            numbers: of this process, at least 0; as many in every call.
        """
        if self._group is None:
            return list(numbers)
        agreed = self._settled()
        self._sent = torch.tensor(numbers, dtype=torch.int64)
        self._work = dist.all_reduce(self._sent, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return [0] * len(numbers) if agreed is None else agreed

    def close(self) -> None:
        """Wait for what is under way."""
        self._settled()

    def _settled(self) -> list[int] | None:
        if self._work is None or self._sent is None:
            return None
        self._work.wait()
        self._work = None
        return [int(number) for number in self._sent]
