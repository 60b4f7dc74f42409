"""The training loop: counts steps, logs, evaluates, saves, stops, and goes on from a checkpoint as if never stopped."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from aegl.engine import rng
from aegl.engine.callbacks import Callback, LogRecord, TrainResult
from aegl.engine.checkpoint import Checkpoint, TrainingState
from aegl.engine.distributed import World, average_batch_norm, same_everywhere
from aegl.engine.monitor import LossMonitor
from aegl.engine.signals import StoppedError, StopRequest
from aegl.engine.stepper import Stepper
from aegl.engine.weights import WeightsFolder
from aegl.errors import CheckpointError, RunError
from aegl.types import Batch

LOGGER = logging.getLogger("aegl")

OpenLoader = Callable[[int], Iterable[Batch]]
"""Endless batches of this process, after the given number of batches has been consumed."""

Validate = Callable[[nn.Module], Mapping[str, Any]]
"""Evaluate a model; collective, gives the summary on the main process and an empty mapping elsewhere."""


class Head(Protocol):
    """What carries the long-tail method: told of the steps, tells about itself."""

    @property
    def diagnostics(self) -> Mapping[str, Tensor]:
        """Detached scalars about the last step."""
        ...

    def step_begin(self, progress: float, epoch: float) -> None:
        """A step begins: share of training that is done, in [0, 1), and finished epochs."""
        ...


@dataclass(frozen=True)
class TrainPlan:
    """How long a run is and when it does what; all in optimiser steps.

    Args:
        iterations: length of the run.
        batch: images per step over all processes.
        accumulate: batches per step of each process.
        epoch_images: images of one epoch of the sampler, for display.
        log_every: steps between log records.
        checkpoint_every: steps between checkpoints.
        val_every: steps between evaluations, 0 for one at the end.
    """

    iterations: int
    batch: int
    accumulate: int = 1
    epoch_images: float = 1.0
    log_every: int = 20
    checkpoint_every: int = 1000
    val_every: int = 0


def fitness(summary: Mapping[str, Any]) -> float:
    """What ``best.pt`` is best in: mask AP, or box AP without masks; -1 where nothing was scored."""
    for kind in ("mask", "box"):
        value = (summary.get(kind) or {}).get("AP")
        if value is not None:
            return float(value)
    return -1.0


class Trainer:
    """Runs a :class:`TrainPlan`.

    Args:
        stepper: model, optimiser and how a step is made.
        head: told the progress before each step, and asked for diagnostics.
        schedule: learning rate by step number, from 0.
        open_loader: this process's batches.
        plan: length and rhythm.
        weights: where checkpoints go; written by the main process.
        world: the processes.
        validate: evaluates the model; None trains without evaluation, and the last weights are the best.
        callbacks: told of what happens; the main process's are called.
        describe_images: rows of the training set to words, for messages.
    """

    def __init__(
        self,
        stepper: Stepper,
        *,
        head: Head,
        schedule: Callable[[int], float],
        open_loader: OpenLoader,
        plan: TrainPlan,
        weights: WeightsFolder,
        world: World | None = None,
        validate: Validate | None = None,
        callbacks: Sequence[Callback] = (),
        describe_images: Callable[[list[int]], str] = str,
    ) -> None:
        self.plan = plan
        self.iteration = 0
        self.best: float | None = None
        self.metrics: Mapping[str, Any] = {}
        self._stepper = stepper
        self._head = head
        self._schedule = schedule
        self._open_loader = open_loader
        self._weights = weights
        self._world = world or World()
        self._validate = validate
        self._callbacks = list(callbacks) if self._world.is_main else []
        self._monitor = LossMonitor(self._world, describe_images)
        self._validated = -1
        self._is_best = False
        self._started = self._logged_at = time.perf_counter()
        self._logged_iteration = 0

    @property
    def _epoch(self) -> float:
        """Finished epochs of the sampler."""
        return self.iteration * self.plan.batch / self.plan.epoch_images

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take over the state of a run, on every process.

        Raises:
            CheckpointError: if the checkpoint is for use only, or its weights do not fit the model.
        """
        state = checkpoint.training
        if state is None:
            raise CheckpointError("best.pt holds no training state: resume from last.pt beside it")
        try:
            self._stepper.model.load_state_dict(checkpoint.model)
            self._stepper.load_state_dict({"optimizer": state.optimizer, "scaler": state.scaler, "ema": state.ema})
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint does not fit the run's model: {error}") from error
        self.iteration, self._validated, self.best = state.iteration, state.validated, state.best
        self.metrics = checkpoint.metrics
        if len(state.rng) == self._world.size:
            rng.set_state(state.rng[self._world.rank], self._world.device)
        else:
            LOGGER.warning(
                "the run was saved by %d processes and goes on with %d: its random draws will differ from those "
                "of an unbroken run",
                len(state.rng),
                self._world.size,
            )

    def run(self) -> TrainResult:
        """Train to the end of the plan.

        Raises:
            RunError: if the loss is not finite or a file cannot be written.
            StoppedError: if a signal asked the run to stop; ``last.pt`` holds the state of that moment.
        """
        self._started = self._logged_at = time.perf_counter()
        self._logged_iteration = self.iteration
        try:
            self._emit("on_train_start", self.iteration, self.plan.iterations)
            with StopRequest() as stop:
                if self._val_due():  # the run was killed while it was evaluated
                    self._evaluate()
                if self.iteration < self.plan.iterations:
                    self._loop(stop)
            result = TrainResult(self.iteration, time.perf_counter() - self._started, self.metrics, self.best)
            self._emit("on_train_end", result)
        finally:
            self._emit("on_exit")
        return result

    def _loop(self, stop: StopRequest) -> None:
        batches = iter(self._open_loader(self.iteration * self.plan.accumulate))
        self._stepper.model.train()
        while self.iteration < self.plan.iterations:
            self._step(batches)
            logged = self.iteration % self.plan.log_every == 0
            if logged:
                self._log()
            # A request must be agreed on by all processes; to ask them each step would stall a GPU.
            if (logged or self._world.size == 1) and (received := stop.agreed(self._world)):
                self._save()
                raise StoppedError(
                    f"stopped by {received.name} after iteration {self.iteration} of {self.plan.iterations}; the state "
                    f"is saved, go on with resume=true weights={self._weights.last}",
                    received,
                )
            if self._val_due():
                self._evaluate()
                self._stepper.model.train()
            elif self._save_due():
                self._save()

    def _step(self, batches: Iterator[Batch]) -> None:
        self._head.step_begin(self.iteration / self.plan.iterations, self._epoch)
        share = list(itertools.islice(batches, self.plan.accumulate))
        if len(share) < self.plan.accumulate:
            raise RunError(f"iteration {self.iteration + 1}: the training loader ended early; the data set is empty")
        terms, images = self._stepper.step(share, self._schedule(self.iteration))
        self.iteration += 1
        self._monitor.add(self.iteration, terms, images)
        self._emit("on_step_end", self.iteration)

    def _log(self) -> None:
        terms = self._monitor.flush()
        if not terms:
            return
        now, steps = time.perf_counter(), self.iteration - self._logged_iteration
        per_second = steps / max(now - self._logged_at, 1e-9)
        self._logged_at, self._logged_iteration = now, self.iteration
        record = LogRecord(
            iteration=self.iteration,
            total=self.plan.iterations,
            epoch=self._epoch,
            lr=self._schedule(self.iteration - 1),
            loss=sum(terms.values()),
            terms=terms,
            images_per_second=per_second * self.plan.batch,
            seconds=now - self._started,
            eta_seconds=(self.plan.iterations - self.iteration) / per_second,
            diagnostics={name: float(value) for name, value in self._head.diagnostics.items()},
        )
        self._emit("on_log", record)

    def _val_due(self) -> bool:
        if self._validated == self.iteration or self.iteration == 0:
            return False
        every = self.plan.val_every
        return self.iteration == self.plan.iterations or (every > 0 and self.iteration % every == 0)

    def _save_due(self) -> bool:
        return self.iteration % self.plan.checkpoint_every == 0

    def _evaluate(self) -> None:
        """Score the model, keep it if it is the best. Saves before: a kill while scoring costs no training."""
        self._save()
        if self._validate is not None:
            self._emit("on_val_start", self.iteration)
            with rng.preserved(self._world.device):
                self.metrics = self._validate(self._stepper.evaluated_model())
            self._logged_at = time.perf_counter()
        self._validated = self.iteration
        score = fitness(self.metrics)
        if self.best is None or score > self.best or self._validate is None:
            self.best = None if self._validate is None else score
            self._is_best = True
        self._save()
        if self._validate is not None:
            self._emit("on_val_end", self.iteration, self.metrics)

    def _save(self) -> None:
        """Write a checkpoint; collective. Steps that have not been looked at yet are, lest a broken state is kept."""
        self._log()
        for model in dict.fromkeys((self._stepper.model, self._stepper.evaluated_model())):
            average_batch_norm(model, self._world)
            if not same_everywhere(model, self._world):
                LOGGER.warning(
                    "step %d: the processes no longer hold the same weights; the main one's are saved", self.iteration
                )
        states = self._rng_of_all()
        if self._world.is_main:
            training = TrainingState(
                **self._stepper.state_dict(),
                iteration=self.iteration,
                consumed_batches=self.iteration * self.plan.accumulate,
                rng=states,
                validated=self._validated,
                best=self.best,
            )
            self._weights.save(self._stepper.model.state_dict(), self.metrics, training, is_best=self._is_best)
            self._emit("on_checkpoint", self.iteration, self._weights.last)
        self._is_best = False

    def _rng_of_all(self) -> list[rng.RngState]:
        own = rng.get_state(self._world.device)
        gathered = {name: self._world.gather(state) for name, state in own.items()}
        return [{name: states[rank] for name, states in gathered.items()} for rank in range(self._world.size)]

    def _emit(self, hook: str, *args: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, hook)(*args)
