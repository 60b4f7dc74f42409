"""When a checkpoint is written, and how it gets to the disk while training goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aegl.engine import rng
from aegl.engine.checkpoint import TrainingState, snapshot
from aegl.engine.distributed import World, average_batch_norm, same_everywhere
from aegl.engine.plan import TrainPlan
from aegl.engine.stepper import Stepper
from aegl.engine.weights import WeightsFolder
from aegl.errors import RunError

LOGGER = logging.getLogger("aegl")


class Saver:
    """Copies the state of a run to the CPU and writes the copy in a thread, one at a time.

    A write that fails (full disk) is told and does not end the run: the next checkpoint tries again. Only
    :meth:`finish` insists, because after it nothing is left that could be tried again.

    Args:
        stepper: model, optimiser, scaler and average.
        weights: where checkpoints go; written by the main process.
        world: the processes.
        plan: the rhythm.
        on_written: told the iteration and the path of what has been written, in the thread of the caller.
    """

    def __init__(
        self,
        stepper: Stepper,
        weights: WeightsFolder,
        world: World,
        plan: TrainPlan,
        on_written: Callable[[int, Path], None],
    ) -> None:
        self._stepper = stepper
        self._weights = weights
        self._world = world
        self._plan = plan
        self._on_written = on_written
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="aegl-checkpoint")
        self._writing: tuple[int, Future[None]] | None = None
        self._saved_at = time.monotonic()

    def due(self, iteration: int) -> bool:
        """Whether a checkpoint follows this step, by their number."""
        return iteration % self._plan.checkpoint_every == 0

    @property
    def overdue(self) -> bool:
        """Whether one should follow soon, by this process's clock; the processes have to agree on it."""
        return time.monotonic() - self._saved_at >= self._plan.checkpoint_seconds

    def save(
        self, iteration: int, *, metrics: Mapping[str, Any], validated: int, best: float | None, is_best: bool
    ) -> None:
        """Copy the state and begin to write it; collective. Waits for the write before, if it is not finished."""
        for model in dict.fromkeys((self._stepper.model, self._stepper.evaluated_model())):
            average_batch_norm(model, self._world)
            if not same_everywhere(model, self._world):
                LOGGER.warning(
                    "step %d: the processes no longer hold the same weights; the main one's are saved", iteration
                )
        states = self._rng_of_all()
        if self._world.is_main:
            self.wait()
            training = TrainingState(
                **snapshot(self._stepper.state_dict()),
                iteration=iteration,
                consumed_batches=iteration * self._plan.accumulate,
                rng=states,
                validated=validated,
                best=best,
            )
            model_state = snapshot(self._stepper.model.state_dict())
            job = self._thread.submit(self._weights.save, model_state, dict(metrics), training, is_best=is_best)
            self._writing = iteration, job
        self._saved_at = time.monotonic()

    def poll(self) -> None:
        """Tell of a write that has come to its end, if one has."""
        if self._writing and self._writing[1].done():
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written. A failure is a warning."""
        try:
            self.finish()
        except RunError as error:
            LOGGER.warning("%s. Training goes on, and the next checkpoint tries again: make room now", error)

    def finish(self) -> None:
        """Until nothing is being written.

        Raises:
            RunError: if the last write failed.
        """
        if self._writing is None:
            return
        (iteration, job), self._writing = self._writing, None
        job.result()
        self._on_written(iteration, self._weights.last)

    def close(self) -> None:
        """Finish, and end the thread; nothing that is being written is lost."""
        self.wait()
        self._thread.shutdown()

    def _rng_of_all(self) -> list[rng.RngState]:
        own = rng.get_state(self._world.device)
        gathered = {name: self._world.gather(state) for name, state in own.items()}
        return [{name: states[rank] for name, states in gathered.items()} for rank in range(self._world.size)]
