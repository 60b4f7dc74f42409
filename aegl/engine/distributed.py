"""Several processes as one training run: who am I, on which device, and the few collectives that the engine needs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from aegl import errors
from aegl.errors import AeglError, ConfigError, RunError

_TIMEOUT = timedelta(hours=3)
"""Ranks wait for each other this long: the main one may score a large split while the others stand at a barrier.

A process that dies is noticed at once, by its closed connections and by torchrun. One that hangs is ended by its
watchdog, which tells training from evaluation as no timeout of a process group can.
"""


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them. The default is a run of a single process.

    Args:
        rank: number of this process, 0 the main one.
        size: number of processes.
        device: where this process computes.
        local_rank: number of this process among those on its machine.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and scores."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum ``tensor`` over the processes, in place; every process gets the same bits."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """``tensor`` (same shape everywhere) of every process, by rank, on the CPU."""
        if self.size == 1:
            return [tensor.cpu()]
        local = tensor.to(self.device)
        parts = [torch.empty_like(local) for _ in range(self.size)]
        dist.all_gather(parts, local)
        return [part.cpu() for part in parts]

    def broadcast_text(self, text: str, source: int = 0) -> str:
        """The ``text`` of one process, by default the main one's, on every process."""
        if self.size == 1:
            return text
        data = text.encode()
        length = torch.tensor([len(data)], device=self.device)
        dist.broadcast(length, source)
        buffer = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
        if self.rank == source and data:
            buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(buffer, source)
        return bytes(buffer.cpu().tolist()).decode()

    def from_main(self, make: Callable[[], str]) -> str:
        """What ``make`` gives on the main process, on every process; the others do not call it.

        Raises:
            AeglError: what ``make`` raises on the main process, on every process, so that none waits for ever.
        """
        if self.size == 1:
            return make()
        answer: dict[str, str] = {}
        if self.is_main:
            try:
                answer = {"given": make()}
            except AeglError as error:
                self.broadcast_text(json.dumps({"raised": _public_kind(error), "message": str(error)}))
                raise
        answer = json.loads(self.broadcast_text(json.dumps(answer)))
        if "raised" in answer:
            raise getattr(errors, answer["raised"])(answer["message"])
        return answer["given"]


def _public_kind(error: AeglError) -> str:
    """Name of the class in :mod:`aegl.errors` that an error is of."""
    return next(kind.__name__ for kind in type(error).__mro__ if hasattr(errors, kind.__name__))


def resolve_device(device: str, local_rank: int = 0, local_size: int = 1) -> torch.device:
    """The device that the key ``device`` (auto, cpu, cuda, cuda:N) means for one of the processes on this machine.

    Raises:
        ConfigError: for an unknown device, or one that this machine lacks.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device={device}: must be auto, cpu, cuda or cuda:N") from error
    if wanted.type == "cpu":
        return wanted
    if wanted.type != "cuda":
        raise ConfigError(f"device={device}: must be auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise ConfigError(f"device={device}: this machine offers no CUDA device to PyTorch; use device=cpu")
    index = local_rank if local_size > 1 else (wanted.index or 0)
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"device={device}: process {local_rank} wants cuda:{index}, {torch.cuda.device_count()} exist"
        )
    return torch.device("cuda", index)


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """This process's :class:`World`, from torchrun's environment; its process group is closed on leaving.

    A process group that exists already is used and left open. Collectives run over gloo on CPU and NCCL on CUDA.

    Args:
        device: the configuration key; with several processes, ``cuda`` means one GPU each.

    Raises:
        ConfigError: for a device that is not here.
        RunError: if inside the context a collective fails, because another process has ended.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", str(size)))
    target = resolve_device(device, local_rank, local_size)
    if target.type == "cuda":
        torch.cuda.set_device(target)
    if dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size(), target, local_rank)
        return
    if size == 1:
        yield World(device=target)
        return
    dist.init_process_group("nccl" if target.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), target, local_rank)
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):  # errors of gloo have no type of their own
            reason = str(error).splitlines()[0]
            raise RunError(f"lost the other processes of the run, one of which may say why ({reason})") from error
        raise
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def average_batch_norm(model: nn.Module, world: World) -> None:
    """Replace the running statistics of batch norm layers by their mean over the processes.

    DDP keeps parameters equal but lets every process gather its own statistics.
    """
    if world.size == 1:
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            for statistic in (module.running_mean, module.running_var):
                if statistic is not None:
                    world.sum_(statistic).div_(world.size)


@torch.no_grad()
def same_everywhere(model: nn.Module, world: World) -> bool:
    """Whether the model's weights and buffers are the same on all processes, to the bit. Collective."""
    if world.size == 1:
        return True
    total = torch.zeros(1, dtype=torch.int64, device=world.device)
    for tensor in model.state_dict().values():
        words = tensor.contiguous().flatten().view(torch.int32 if tensor.element_size() % 4 == 0 else torch.uint8)
        # Sums of integers do not depend on the order in which a device adds; factors tell the tensors apart.
        total = total * 31 + words.sum(dtype=torch.int64)
    return len({int(each) for each in world.gather(total)}) == 1
