"""What goes wrong while training images are loaded, told in one message: bad images, lost or hanging workers."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping, Sequence

from aegl.errors import DataError, RunError

LOGGER = logging.getLogger("aegl")
_MOST_NAMED = 20


class BadImages:
    """The images of a data set that could not be read, each logged once, until there are too many.

    Args:
        limit: how many are passed over.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._reasons: dict[int, str] = {}

    def add(self, reasons: Mapping[int, str]) -> None:
        """Note why images cannot be read, by their rows in the store.

        Raises:
            DataError: if more images than the limit have been met; it names them.
        """
        for image, reason in reasons.items():
            if image not in self._reasons:
                self._reasons[image] = reason
                if len(self._reasons) <= self._limit:
                    LOGGER.warning("%s; another image takes its place", reason)
        if len(self._reasons) > self._limit:
            raise DataError(self._message())

    def _message(self) -> str:
        reasons = list(self._reasons.values())
        if self._limit == 0:
            return f"{reasons[0]}; restore the file, or let training pass over a few such images (max_bad_images)"
        return (
            f"{len(reasons)} images cannot be read, max_bad_images={self._limit} allows no more; restore the files, "
            f"or raise the limit:\n{_lines(reasons)}"
        )


def nothing_readable(source: object) -> DataError:
    """No image of an epoch can be read."""
    return DataError(f"no training image in {source} can be read; check the folder of the images")


def lost_worker(exit_code: int | None, workers: int) -> RunError:
    """A loader's worker ended by itself.

    Args:
        exit_code: that of its process, -n after signal n.
        workers: how many there are.
    """
    if exit_code == -signal.SIGBUS:
        return no_shared_memory(workers, "bus error")
    if exit_code == -signal.SIGKILL:
        return RunError(
            "a data loading process was killed (SIGKILL). Most likely the machine, or the limit of its container or "
            f"job, ran out of memory: lower workers={workers} or batch, or ask for more memory"
        )
    how = f"by signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"with exit code {exit_code}"
    return RunError(
        f"a data loading process ended unexpectedly, {how}; workers=0 loads in the main process and shows more"
    )


def no_shared_memory(workers: int, reason: str) -> RunError:
    """Batches do not fit into the memory that processes share."""
    return RunError(
        f"no room in shared memory for a batch ({reason}): /dev/shm is full or too small. Make it larger (docker run "
        f"--shm-size=8g or --ipc=host), or lower workers={workers} or batch; workers=0 needs none"
    )


def stuck_loader(seconds: float, images: Sequence[str]) -> RunError:
    """No batch came in time.

    Args:
        seconds: how long it was waited for.
        images: files of the batch that did not come.
    """
    return RunError(
        f"no batch came for {seconds:g} seconds (loader_timeout). Does the file system of the images hang? They were "
        f"to be loaded from:\n{_lines(images)}"
    )


def _lines(texts: Sequence[str]) -> str:
    shown = [f"  {text}" for text in texts[:_MOST_NAMED]]
    if len(texts) > _MOST_NAMED:
        shown.append(f"  and {len(texts) - _MOST_NAMED} more")
    return "\n".join(shown)
