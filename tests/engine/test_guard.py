"""A loss or a gradient that is not finite: it ends the run, or the step leaves no trace."""

import logging
import math
import os
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from aegl.engine.callbacks import Callback, LogRecord
from aegl.engine.checkpoint import load_checkpoint, snapshot
from aegl.engine.distributed import join_world
from aegl.engine.guard import StepGuard
from aegl.errors import RunError


def poison_gradient(trainer: Any, iterations: tuple[int, ...]) -> None:
    """NaN in one gradient of these steps; the loss stays finite."""
    weight = trainer._stepper.model.body[0].weight
    weight.register_hook(lambda grad: grad * math.nan if trainer.iteration + 1 in iterations else grad)


class States(Callback):
    """What the weights, buffers, optimiser and average were after each step."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.found: dict[int, Any] = {}

    def on_step_end(self, iteration: int) -> None:
        stepper = self.trainer._stepper
        average, optimizer = stepper.ema.state_dict(), stepper.optimizer.state_dict()["state"]
        self.found[iteration] = snapshot((stepper.model.state_dict(), average, optimizer))


def test_a_gradient_that_is_not_finite_ends_the_run(toy: ModuleType, tmp_path: Path) -> None:
    trainer = toy.build(tmp_path)
    poison_gradient(trainer, (6,))
    with pytest.raises(RunError, match=r"iteration 6: the gradient is not finite, though the loss is \(.*image 4, "):
        trainer.run()
    assert load_checkpoint(tmp_path / "last.pt").iteration == 4


@pytest.mark.parametrize("kind", ["loss", "gradient", "limit"])
def test_a_skipped_step_leaves_no_trace(
    toy: ModuleType, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    states = States()
    options: dict[str, Any] = {"bad_step": 10} if kind == "loss" else {}
    trainer = toy.build(tmp_path, callbacks=[states], max_skipped=2, loss_limit=100.0, **options)
    states.trainer = trainer
    if kind == "gradient":
        poison_gradient(trainer, (6,))
    if kind == "limit":
        trainer._stepper.model.loss.register_forward_hook(
            lambda *of: {name: 1000 * value for name, value in of[-1].items()} if trainer.iteration == 5 else None
        )
    assert trainer.run().iterations == 12
    assert toy.same(states.found[5], states.found[6])
    assert not toy.same(states.found[6][0], states.found[7][0])
    (message,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    reasons = {"loss": "the loss is not finite (", "gradient": "the gradient is not", "limit": "is above loss_limit="}
    assert message.startswith("iteration 6: ") and reasons[kind] in message and "image 4" in message
    assert message.endswith("The step is left out (1 so far)")


def test_too_many_skipped_steps_in_a_row_end_the_run(toy: ModuleType, tmp_path: Path) -> None:
    trainer = toy.build(tmp_path, max_skipped=2)
    poison_gradient(trainer, (3, 4, 6, 7, 9, 10, 11))
    with pytest.raises(RunError, match=r"iteration 11: .*; more than max_skipped=2 steps in a row"):
        trainer.run()


def test_means_leave_failed_steps_out(toy: ModuleType, tmp_path: Path) -> None:
    class Losses(Callback):
        def on_log(self, record: LogRecord) -> None:
            assert math.isfinite(record.loss) == (record.iteration != 6)

    trainer = toy.build(tmp_path, callbacks=[Losses()], max_skipped=5)
    poison_gradient(trainer, (2, 5, 6))
    trainer.run()


def test_an_overflow_in_fp16_is_no_failure_but_a_loss_is(toy: ModuleType, tmp_path: Path) -> None:
    """The scaler looks for its scale by trying."""
    trainer = toy.build(tmp_path / "a", amp="fp16")
    poison_gradient(trainer, (2, 3))
    assert trainer.run().iterations == 12
    with pytest.raises(RunError, match="iteration 6: the loss is not finite"):
        toy.build(tmp_path / "b", amp="fp16", bad_step=10).run()


def test_a_gradient_that_no_scale_makes_finite_is_a_failure(toy: ModuleType, tmp_path: Path) -> None:
    trainer = toy.build(tmp_path, amp="fp16", iterations=60, checkpoint_every=100)
    poison_gradient(trainer, tuple(range(3, 60)))
    with pytest.raises(RunError, match="iteration 35: the gradient is not finite"):
        trainer.run()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_fused_kernels_read_the_verdict(
    toy: ModuleType, kind: str, momentum: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA, where nobody looks at the gradient on the way: a bad step, also the first one, changes nothing."""

    def train(bad_steps: tuple[int, ...]) -> Any:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
        parameters = list(model.parameters())
        optimizer: Any = (
            torch.optim.SGD(parameters, lr=0.1, momentum=momentum, fused=True)
            if kind == "sgd"
            else torch.optim.AdamW(parameters, lr=0.1, betas=(momentum, 0.99), fused=True)
        )
        guard = StepGuard(model, torch.amp.GradScaler("cpu", enabled=False), restore=True)
        for step in (s for s in range(6) if bad_steps or s not in (0, 3)):
            optimizer.zero_grad()
            guard.begin()
            inputs = torch.arange(12.0).reshape(4, 3) * (step + 1) + (math.nan if step in bad_steps else 0)
            guard.mark(model(inputs).square().sum() + 0 * inputs.sum(), 1.0).backward()
            failed, _ = guard.update(optimizer, torch.nn.utils.get_total_norm([p.grad for p in parameters]))
            assert bool(failed) == (step in bad_steps)
        return snapshot(model.state_dict()), snapshot(optimizer.state_dict()["state"])

    monkeypatch.setattr("aegl.engine.guard._is_free", lambda value: False)
    assert toy.same(train((0, 3)), train(()))


def fail_on_one_rank(toy: ModuleType, folder: Path, rank: int, port: int) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ.update(MASTER_PORT=str(port))
    logging.getLogger("aegl").addHandler(logging.FileHandler(folder / f"log{rank}.txt"))
    with join_world("cpu") as world:
        states = States()
        trainer = toy.build(folder, world=world, max_skipped=2, bad_step=10 if rank else -1)
        states.trainer, trainer._callbacks = trainer, [states]
        trainer.run()
        ok = toy.same(states.found[5], states.found[6]) and not toy.same(states.found[6][0], states.found[7][0])
    os._exit(0 if ok else 1)


def test_all_processes_skip_the_step_that_is_bad_on_one(toy: ModuleType, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [toy.fork(fail_on_one_rank, toy, tmp_path, rank, port) for rank in range(2)]
    assert [toy.exit_code(rank) for rank in ranks] == [0, 0]
    assert "iteration 6: the loss is not finite (loss_cls=nan" in (tmp_path / "log0.txt").read_text()
