"""Files between machines that share no file system: the main process's to the others, and the others' to it."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from aegl.engine.checkpoint import Checkpoint, load_checkpoint
from aegl.engine.distributed import World
from aegl.errors import RunError

_PIECE = 64 * 2**20
"""Bytes sent at once: what sending costs in memory, however large the file."""


def load_main_checkpoint(path: Path, world: World) -> Checkpoint:
    """A checkpoint that the main process can read, on every process. Collective.

    Raises:
        CheckpointError: if the main process cannot read it; on every process.
    """
    loaded: list[Checkpoint] = []

    def load() -> str:
        loaded.append(load_checkpoint(path))
        return ""

    world.from_main(load)
    return send_checkpoint(loaded[0] if loaded else None, path, world)


def send_checkpoint(loaded: Checkpoint | None, path: Path, world: World) -> Checkpoint:
    """The checkpoint that the main process has ``loaded`` from ``path``, on every process. Collective."""
    if world.size == 1 and loaded is not None:
        return loaded
    with tempfile.TemporaryDirectory(prefix="aegl-") as folder:
        copy = Path(folder) / path.name
        _send(0, path, None if world.is_main else copy, world)
        return loaded if loaded is not None else load_checkpoint(copy)


@contextmanager
def shared_folder(folder: Path, world: World) -> Iterator[Path]:
    """A folder for this process's files, all of which the main process finds in ``folder`` afterwards. Collective.

    It is ``folder`` itself, except where another machine does not see it: there it is a temporary one.

    Args:
        folder: exists on the main process.
        world: the processes; each gives its files names of their own.
    """
    blind = _who_does_not_see(folder, world)
    if world.rank not in blind:
        yield folder
        own = folder
        _bring_home(own, blind, folder, world)
        return
    with tempfile.TemporaryDirectory(prefix="aegl-") as temporary:
        own = Path(temporary)
        yield own
        _bring_home(own, blind, folder, world)


def _who_does_not_see(folder: Path, world: World) -> list[int]:
    """Ranks for which ``folder`` is not the main process's; one of the same name may lie on their own disk."""
    if world.size == 1:
        return []
    mark = folder / f".{world.broadcast_text(uuid.uuid4().hex)}"
    if world.is_main:
        mark.touch()
    world.barrier()
    sees = world.gather(torch.tensor([mark.exists()], dtype=torch.int32))
    if world.is_main:
        mark.unlink()
    return [rank for rank, seen in enumerate(sees) if not seen]


def _bring_home(own: Path, blind: list[int], folder: Path, world: World) -> None:
    """The files that the ``blind`` processes have in ``own``, into the main one's ``folder``."""
    for rank in blind:
        names = "\n".join(path.name for path in own.iterdir()) if rank == world.rank else ""
        for name in world.broadcast_text(names, source=rank).splitlines():
            _send(rank, own / name, folder / name if world.is_main else None, world)


def _send(source: int, path: Path, target: Path | None, world: World) -> None:
    """Copy the file ``path`` of process ``source`` into the ``target`` of those that give one. Collective."""
    is_source = world.rank == source
    with ExitStack() as files:
        reading = files.enter_context(path.open("rb")) if is_source else None
        writing = files.enter_context(target.open("wb")) if target else None
        left = int(world.broadcast_text(str(path.stat().st_size) if is_source else "", source=source))
        while left:
            piece = torch.zeros(min(_PIECE, left), dtype=torch.uint8)
            if reading and reading.readinto(memoryview(piece.numpy().data)) != len(piece):
                raise RunError(f"{path}: was cut short while it was sent to the other processes")
            on_device = piece.to(world.device)
            dist.broadcast(on_device, source)
            if writing:
                writing.write(on_device.cpu().numpy().tobytes())
            left -= len(piece)
