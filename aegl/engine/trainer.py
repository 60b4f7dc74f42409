"""The training loop: counts steps, logs, evaluates, saves, stops, and goes on from a checkpoint as if never stopped."""

from __future__ import annotations

import itertools
import logging
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from aegl.engine import rng
from aegl.engine.agreement import Agreement
from aegl.engine.callbacks import Callback, LogRecord, TrainResult, call
from aegl.engine.checkpoint import Checkpoint
from aegl.engine.distributed import World
from aegl.engine.fitness import fitness
from aegl.engine.memory import training_memory
from aegl.engine.memory_use import peak_memory_mb
from aegl.engine.monitor import LossMonitor
from aegl.engine.plan import TrainPlan
from aegl.engine.saver import Saver
from aegl.engine.signals import StoppedError, StopRequest
from aegl.engine.stepper import Stepper
from aegl.engine.watchdog import Watchdog
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
        watchdog: ends the process if it hangs; None: nobody looks.
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
        watchdog: Watchdog | None = None,
    ) -> None:
        self.plan = plan
        self.iteration = 0
        self.best: float | None = None
        self.metrics: Mapping[str, Any] = {}
        self._stepper = stepper
        self._head = head
        self._schedule = schedule
        self._open_loader = open_loader
        self._last = weights.last
        self._world = world or World()
        self._validate = validate
        self._callbacks = list(callbacks) if self._world.is_main else []
        self._monitor = LossMonitor(
            self._world, describe_images, max_skipped=plan.max_skipped, loss_limit=plan.loss_limit
        )
        self._saver = Saver(stepper, weights, self._world, plan, lambda *of: self._emit("on_checkpoint", *of))
        self._watchdog = watchdog or Watchdog(math.inf, Path())
        self._validated = -1
        self._is_best = False
        self._ending = ""  # why a callback ends the run early
        self._started = self._logged_at = time.perf_counter()
        self._waited = 0.0
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
            with StopRequest() as stop, self._watchdog:
                self._agree_on_the_end()
                if self._val_due():  # the run was killed while it was evaluated
                    self._evaluate(stop)
                if self.iteration < self.plan.iterations:
                    self._loop(stop)
                self._saver.finish()
            seconds = time.perf_counter() - self._started
            result = TrainResult(self.iteration, seconds, self.metrics, self.best, self._ending or None)
            self._emit("on_train_end", result)
        finally:
            self._saver.close()
            self._emit("on_exit")
        return result

    def _loop(self, stop: StopRequest) -> None:
        batches = iter(self._open_loader(self.iteration * self.plan.accumulate))
        agreement = Agreement(self._world)
        is_overdue = False
        self._stepper.model.train()
        while self.iteration < self.plan.iterations:
            self._step(batches)
            logged = self.iteration % self.plan.log_every == 0
            if logged:
                self._log()
            asked = [stop.received or 0, int(self._saver.overdue), int(bool(self._ending))]
            signal_number, overdue, ending = agreement.largest(asked)
            is_overdue = is_overdue or bool(overdue)
            if signal_number:
                self._stop(signal_number)
            if ending:
                self._agree_on_the_end()
            if self._val_due():
                self._evaluate(stop)
                self._stepper.model.train()
                is_overdue = False
            elif self._saver.due(self.iteration) or (is_overdue and logged):
                self._save()
                is_overdue = False
        agreement.close()

    def _step(self, batches: Iterator[Batch]) -> None:
        self._head.step_begin(self.iteration / self.plan.iterations, self._epoch)
        self._watchdog.progress(f"waiting for the data of iteration {self.iteration + 1}")
        asked = time.perf_counter()
        share = list(itertools.islice(batches, self.plan.accumulate))
        self._waited += time.perf_counter() - asked
        if len(share) < self.plan.accumulate:
            raise RunError(f"iteration {self.iteration + 1}: the training loader ended early; the data set is empty")
        self._watchdog.progress(f"iteration {self.iteration + 1}")
        with training_memory(f"iteration {self.iteration + 1}", share, self.plan, self._last, self._saver.wait):
            step = self._stepper.step(share, self._schedule(self.iteration))
        self.iteration += 1
        self._monitor.add(self.iteration, step)
        self._emit("on_step_end", self.iteration)
        self._saver.poll()

    def _stop(self, number: int) -> None:
        """Save, and end the run as a signal asked for."""
        self._save()
        self._saver.finish()
        received = signal.Signals(number)
        raise StoppedError(
            f"stopped by {received.name} after iteration {self.iteration} of {self.plan.iterations}; {self._advice()}",
            received,
        )

    def _advice(self) -> str:
        return f"the state is saved, go on with resume=true weights={self._last}"

    def _log(self) -> None:
        terms = self._monitor.flush()
        if not terms:
            return
        now, steps = time.perf_counter(), self.iteration - self._logged_iteration
        seconds = max(now - self._logged_at, 1e-9)
        per_second, data_share = steps / seconds, min(self._waited / seconds, 1.0)
        self._logged_at, self._logged_iteration, self._waited = now, self.iteration, 0.0
        record = LogRecord(
            iteration=self.iteration,
            total=self.plan.iterations,
            epoch=self._epoch,
            lr=self._schedule(self.iteration - 1),
            loss=sum(terms.values()),
            terms=terms,
            images_per_second=per_second * self.plan.batch,
            data_share=data_share,
            seconds=now - self._started,
            eta_seconds=(self.plan.iterations - self.iteration) / per_second,
            diagnostics={name: float(value) for name, value in self._head.diagnostics.items()},
            memory_mb=peak_memory_mb(self._world.device),
        )
        self._emit("on_log", record)

    def _val_due(self) -> bool:
        return self._validated != self.iteration and self.plan.val_due(self.iteration)

    def _evaluate(self, stop: StopRequest) -> None:
        """Score the model, keep it if it is the best. Saves before: a kill while scoring costs no training."""
        self._save()
        self._saver.wait()  # nor does the evaluation start its workers while another thread is at work
        if self._validate is not None:
            self._emit("on_val_start", self.iteration)
            with rng.preserved(self._world.device), self._watchdog.evaluation():
                self.metrics = self._score(self._validate, stop)
            self._logged_at = time.perf_counter()
        self._validated = self.iteration
        score = fitness(self.metrics)
        if self.best is None or score > self.best or self._validate is None:
            self.best = None if self._validate is None else score
            self._is_best = True
        # Told before it is saved: after a kill in between, the evaluation is made again and what was told is dropped.
        if self._validate is not None:
            self._emit("on_val_end", self.iteration, self.metrics)
        self._agree_on_the_end()
        self._save()

    def _score(self, validate: Validate, stop: StopRequest) -> Mapping[str, Any]:
        of = f"while the model was evaluated after iteration {self.iteration}; {self._advice()}"
        with stop.at_once(of):
            return validate(self._stepper.evaluated_model())

    def _save(self) -> None:
        """Write a checkpoint; collective. Steps that have not been looked at yet are, lest a broken state is kept."""
        self._log()
        self._watchdog.progress(f"saving after iteration {self.iteration}")
        self._saver.save(
            self.iteration,
            metrics=self.metrics,
            validated=self._validated,
            best=self.best,
            is_best=self._is_best,
        )
        self._is_best = False

    def _emit(self, hook: str, *args: Any) -> None:
        for callback in self._callbacks:
            self._ending = call(callback, hook, *args) or self._ending

    def _agree_on_the_end(self) -> None:
        """Let the run end here, on every process, if a callback asked for it; collective."""
        self._ending = self._world.broadcast_text(self._ending)
        if self._ending and self.iteration:  # before the first step there is nothing that could be kept
            self.plan = replace(self.plan, iterations=self.iteration)
