"""Batches from worker processes, with errors that reach the user as one message."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from aegl.data.dataset import DetectionDataset, collate
from aegl.data.samplers import EpochSampler, Key
from aegl.errors import AeglError
from aegl.types import Batch


class BatchLoader:
    """Batches of a dataset, made by ``workers`` processes in the order of ``batches``.

    An :class:`AeglError` met in a worker (an unreadable image, say) is raised here as it is, without a worker's
    traceback. torch's global random state is not touched.

    Args:
        dataset: samples.
        batches: lists of what ``dataset`` is indexed by.
        workers: processes; 0 loads in this one.
        prefetch: batches each worker keeps ready.
    """

    def __init__(
        self, dataset: DetectionDataset, batches: Iterable[Sequence[int | Key]], workers: int, *, prefetch: int = 2
    ) -> None:
        self._loader: DataLoader[Any] = DataLoader(
            _BatchDataset(dataset),
            batch_size=None,  # `batches` groups the samples, `_BatchDataset` collates them
            sampler=batches,
            num_workers=workers,
            collate_fn=_as_is,
            prefetch_factor=prefetch if workers else None,
            worker_init_fn=_init_worker,
            generator=torch.Generator(),  # else every pass would draw from the global one
        )

    def __iter__(self) -> Iterator[Batch]:
        """Go through the batches; raises what a worker met."""
        batches = iter(self._loader)
        try:
            for result in batches:
                if isinstance(result, AeglError):
                    raise result
                yield result
        finally:
            self._stop_workers(batches)

    def _stop_workers(self, batches: Iterator[Any]) -> None:
        """End the workers now; otherwise some later garbage collection would wait seconds for them."""
        if isinstance(batches, _MultiProcessingDataLoaderIter):
            batches._shutdown_workers()
            self._loader._iterator = None

    def __len__(self) -> int:
        """Number of batches; an endless loader has none (``TypeError``)."""
        return len(self._loader)


def train_loader(
    dataset: DetectionDataset, sampler: EpochSampler, workers: int, *, consumed_batches: int = 0
) -> BatchLoader:
    """Endless training batches of this process, going on after ``consumed_batches``.

    To be iterated once; batch size and share of the data are the sampler's.
    """
    return BatchLoader(dataset, _EndlessBatches(sampler, consumed_batches), workers)


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


class _BatchDataset(Dataset["Batch | AeglError"]):
    """Batches by lists of keys; an error is a result, so that it crosses the process boundary unchanged."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, keys: Sequence[int | Key]) -> Batch | AeglError:
        try:
            return collate([self._dataset[key] for key in keys], self._dataset.preprocess)
        except AeglError as error:
            return type(error)(str(error))


def _as_is(batch: Any) -> Any:
    return batch


def _init_worker(worker: int) -> None:
    """Leave Ctrl-C to the parent, which stops its workers itself; they would only add tracebacks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
