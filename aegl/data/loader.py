"""Batches from worker processes, with errors that reach the user as one message."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from aegl.data.annotated import UnreadableImageError
from aegl.data.dataset import DetectionDataset, Sample, collate
from aegl.data.faults import BadImages, lost_worker, no_shared_memory, nothing_readable, stuck_loader
from aegl.data.samplers import EpochSampler, Key
from aegl.errors import AeglError
from aegl.types import Batch, Targets

_POLL_SECONDS = 2.0  # how often a waiting loader looks whether its workers live
_Tensors = TypeVar("_Tensors", Batch, Targets)
Substitutes = Callable[[Key], Iterator[Key]]
"""What may stand in for a key whose image cannot be read, see :meth:`EpochSampler.substitutes`."""


class BatchLoader:
    """Batches of a dataset, made by ``workers`` processes in the order of ``batches``.

    An :class:`AeglError` met in a worker (an unreadable image, say) is raised here as it is, without a worker's
    traceback. torch's global random state is not touched.

    Args:
        dataset: samples.
        batches: lists of what ``dataset`` is indexed by.
        workers: processes; 0 loads in this one.
        prefetch: batches each worker keeps ready.
        substitutes: of unreadable images; None if there shall be none.
        max_bad_images: unreadable images that are substituted before the next one is an error.
        timeout: seconds after which a batch that has not come is an error, if there are workers; 0 for never.
        pin_memory: lay batches into pinned memory, from which a GPU copies them beside its work.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        batches: Iterable[Sequence[int | Key]],
        workers: int,
        *,
        prefetch: int = 2,
        substitutes: Substitutes | None = None,
        max_bad_images: int = 0,
        timeout: float = 0,
        pin_memory: bool = False,
    ) -> None:
        self._dataset = dataset
        self._workers = workers
        self._max_bad_images = max_bad_images
        self._timeout = timeout
        self._asked = _Asked(batches)
        poll = min(_POLL_SECONDS, timeout or _POLL_SECONDS)
        self._loader: DataLoader[Any] = DataLoader(
            _BatchDataset(dataset, substitutes, max_bad_images),
            batch_size=None,  # `batches` groups the samples, `_BatchDataset` collates them
            sampler=self._asked,
            num_workers=workers,
            collate_fn=_as_is,
            prefetch_factor=prefetch if workers else None,
            timeout=poll if workers else 0,
            pin_memory=pin_memory,
            worker_init_fn=_init_worker,
            generator=torch.Generator(),  # else every pass would draw from the global one
        )

    def __iter__(self) -> Iterator[Batch]:
        """Go through the batches.

        Raises:
            AeglError: what a worker met.
            RunError: for a worker that was killed, or a batch that did not come in time.
        """
        bad = BadImages(self._max_bad_images)
        self._asked.waiting.clear()
        with _deaths_seen_while_waiting():
            batches = iter(self._loader)
        try:
            while (result := self._next(batches)) is not None:
                if isinstance(result, AeglError):
                    raise result
                bad.add(result.bad)
                if result.batch is None:
                    raise nothing_readable(self._dataset.store.source)
                yield result.batch
        finally:
            self._stop_workers(batches)

    def _next(self, batches: Iterator[Any]) -> Any:
        """What the next batch has become; None after the last."""
        begin = time.monotonic()
        while True:
            try:
                result = next(batches)
            except StopIteration:
                return None
            except RuntimeError as error:
                self._raise_for_lost(batches)
                if not str(error).startswith("DataLoader timed out"):
                    raise
                if self._timeout and time.monotonic() - begin >= self._timeout:
                    raise stuck_loader(self._timeout, self._awaited_files()) from None
            else:
                self._asked.waiting.popleft()
                return result

    def _raise_for_lost(self, batches: Iterator[Any]) -> None:
        for worker in getattr(batches, "_workers", ()):
            if not worker.is_alive():
                raise lost_worker(worker.exitcode, self._workers) from None

    def _awaited_files(self) -> list[str]:
        keys = self._asked.waiting[0]
        images = [key.image if isinstance(key, Key) else int(key) for key in keys]
        return [str(self._dataset.store.image_path(image)) for image in images]

    def _stop_workers(self, batches: Iterator[Any]) -> None:
        """End the workers now; otherwise some later garbage collection would wait seconds for them."""
        if isinstance(batches, _MultiProcessingDataLoaderIter):
            batches._shutdown_workers()
            self._loader._iterator = None

    def __len__(self) -> int:
        """Number of batches; an endless loader has none (``TypeError``)."""
        return len(self._loader)


def train_loader(
    dataset: DetectionDataset,
    sampler: EpochSampler,
    workers: int,
    *,
    consumed_batches: int = 0,
    max_bad_images: int = 0,
    timeout: float = 0,
    pin_memory: bool = False,
) -> BatchLoader:
    """Endless training batches of this process, going on after ``consumed_batches``.

    To be iterated once; batch size and share of the data are the sampler's. An image that cannot be read is replaced by
    another one of its epoch, the same in every run of a seed; the limit counts the images that this process has met.
    The other options are those of :class:`BatchLoader`.
    """
    return BatchLoader(
        dataset,
        _EndlessBatches(sampler, consumed_batches),
        workers,
        substitutes=sampler.substitutes,
        max_bad_images=max_bad_images,
        timeout=timeout,
        pin_memory=pin_memory,
    )


def eval_loader(
    dataset: DetectionDataset, batch_size: int, workers: int, *, rank: int = 0, world_size: int = 1
) -> BatchLoader:
    """Every image once over all processes: rank ``r`` gets images ``r, r + world_size, ...`` in order.

    The last batch may be smaller, and processes may have different numbers of batches. May be iterated repeatedly.
    """
    indices = list(range(rank, len(dataset), world_size))
    batches = [indices[k : k + batch_size] for k in range(0, len(indices), batch_size)]
    return BatchLoader(dataset, batches, workers)


class _EndlessBatches:
    def __init__(self, sampler: EpochSampler, consumed_batches: int) -> None:
        self._sampler = sampler
        self._consumed_batches = consumed_batches

    def __iter__(self) -> Iterator[list[Key]]:
        return self._sampler.batches(self._consumed_batches)


class _Asked:
    """Batches of keys, of which those that have been asked for and not yet come are remembered in ``waiting``."""

    def __init__(self, batches: Iterable[Sequence[int | Key]]) -> None:
        self._batches = batches
        self.waiting: deque[Sequence[int | Key]] = deque()

    def __iter__(self) -> Iterator[Sequence[int | Key]]:
        for keys in self._batches:
            self.waiting.append(keys)
            yield keys

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]  # endless batches have no length: TypeError


@dataclass(frozen=True)
class _Loaded:
    """A batch, and why images could not be read that others stand in for, by row; no batch if none can."""

    batch: Batch | None
    bad: dict[int, str]

    def pin_memory(self) -> _Loaded:
        """Called by torch's loader when memory shall be pinned."""
        return replace(self, batch=self.batch and _mapped(self.batch, Tensor.pin_memory))


class _NoSubstituteError(Exception):
    """More unreadable images than allowed, or nothing but those."""


class _BatchDataset(Dataset["_Loaded | AeglError"]):
    """Batches by lists of keys; an error is a result, so that it crosses the process boundary unchanged."""

    def __init__(self, dataset: DetectionDataset, substitutes: Substitutes | None, max_bad_images: int) -> None:
        self._dataset = dataset
        self._substitutes = substitutes
        self._max_bad_images = max_bad_images

    def __getitem__(self, keys: Sequence[int | Key]) -> _Loaded | AeglError:
        bad: dict[int, str] = {}
        worker = get_worker_info()
        try:
            samples = [self._sample(key, bad) for key in keys]
            batch = collate(samples, self._dataset.preprocess)
            # Left to torch, a background thread of the worker would do it, lose the error, and the loader would hang.
            return _Loaded(_mapped(batch, Tensor.share_memory_) if worker else batch, bad)
        except AeglError as error:
            return type(error)(str(error))
        except _NoSubstituteError:
            return _Loaded(None, bad)
        except RuntimeError as error:
            if worker and ("No space left" in str(error) or "shared memory" in str(error)):
                return no_shared_memory(worker.num_workers, "No space left on device")
            raise

    def _sample(self, key: int | Key, bad: dict[int, str]) -> Sample:
        if self._substitutes is None or not isinstance(key, Key):
            return self._dataset[key]
        candidate = key
        substitutes: Iterator[Key] | None = None  # costs the draws of an epoch, so only when needed
        while True:
            try:
                return self._dataset[candidate]
            except UnreadableImageError as error:
                bad[candidate.image] = str(error)
            if len(bad) > self._max_bad_images:
                raise _NoSubstituteError
            substitutes = substitutes or self._substitutes(key)
            if (found := next(substitutes, None)) is None:
                raise _NoSubstituteError
            candidate = found


def _mapped(value: _Tensors, change: Callable[[Tensor], Tensor]) -> _Tensors:
    changed: dict[str, Any] = {}
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, Tensor):
            changed[field.name] = change(part)
        elif isinstance(part, Targets):
            changed[field.name] = _mapped(part, change)
    return replace(value, **changed)


def _as_is(batch: Any) -> Any:
    return batch


def _init_worker(worker: int) -> None:
    """Leave Ctrl-C to the parent, which stops its workers itself; they would only add tracebacks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _deaths_seen_while_waiting() -> Iterator[None]:
    """Undo the signal handler by which torch raises a worker's death wherever the main thread happens to be.

    The loader finds it out itself the next time it waits, where it can say what has happened.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
