"""The loop: what is saved when, what is reported, what goes wrong and how it is told."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from aegl.engine.callbacks import Callback, LogRecord, ProgressLogger
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.distributed import World
from aegl.engine.fitness import fitness
from aegl.errors import RunError


class Record(Callback):
    def __init__(self) -> None:
        self.logs: list[LogRecord] = []
        self.events: list[tuple[str, int]] = []

    def on_log(self, record: LogRecord) -> None:
        self.logs.append(record)

    def on_val_end(self, iteration: int, summary: Any) -> None:
        self.events.append(("val", iteration))

    def on_checkpoint(self, iteration: int, path: Path) -> None:
        self.events.append(("save", iteration))


def test_non_finite_loss_names_iteration_and_images_and_keeps_the_checkpoint(toy: ModuleType, tmp_path: Path) -> None:
    trainer = toy.build(tmp_path, bad_step=10)  # batch 10 is the first of step 6; checkpoints are due after 4 and 8
    with pytest.raises(RunError, match=r"iteration 6: .*loss_cls=nan.*image 4, image 5, image 6, image 7"):
        trainer.run()
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    assert checkpoint.iteration == 4
    assert all(value.isfinite().all() for value in checkpoint.model.values())


def test_a_broken_state_is_never_saved(toy: ModuleType, tmp_path: Path) -> None:
    """The checkpoint after step 4 is due before the log record that would notice the bad step 4."""
    with pytest.raises(RunError, match="iteration 4"):
        toy.build(tmp_path, bad_step=7).run()
    assert not (tmp_path / "last.pt").exists()


def test_log_records(toy: ModuleType, tmp_path: Path) -> None:
    record = Record()
    toy.build(tmp_path, callbacks=[record]).run()
    assert [log.iteration for log in record.logs] == [3, 4, 6, 8, 9, 12]
    last = record.logs[-1]
    assert set(last.terms) == {"loss_cls", "loss_size"}
    assert last.loss == pytest.approx(sum(last.terms.values()))
    assert last.epoch == pytest.approx(12 * 8 / 24)
    assert last.diagnostics == {"seen": 12 * 8}
    assert last.eta_seconds == 0


def test_best_follows_mask_ap(toy: ModuleType, tmp_path: Path) -> None:
    scores = iter([0.2, 0.3, 0.1])
    seen: list[nn.Module] = []

    def validate(model: nn.Module) -> dict[str, Any]:
        seen.append(model)
        torch.rand(5)  # an evaluation that draws numbers must not change training
        return {"box": {"AP": 0.9}, "mask": {"AP": next(scores)}}

    record = Record()
    result = toy.build(tmp_path, validate=validate, val_every=5, callbacks=[record]).run()
    assert record.events == [
        *[("save", 4), ("save", 5), ("val", 5), ("save", 5), ("save", 8)],
        *[("save", 10), ("val", 10), ("save", 10), ("save", 12), ("val", 12), ("save", 12)],
    ]
    assert load_checkpoint(tmp_path / "best.pt").iteration == 10
    assert result.best == 0.3
    assert result.metrics["mask"]["AP"] == 0.1
    assert not any(model.training for model in seen)

    other = tmp_path / "other"
    toy.build(other).run()
    left, right = load_checkpoint(tmp_path / "last.pt"), load_checkpoint(other / "last.pt")
    assert all(torch.equal(left.model[name], right.model[name]) for name in left.model)


def test_interrupted_evaluation_is_made_up_for(toy: ModuleType, tmp_path: Path) -> None:
    def fail(model: nn.Module) -> dict[str, Any]:
        raise MemoryError

    with pytest.raises(MemoryError):
        toy.build(tmp_path, validate=fail).run()
    resumed = toy.build(tmp_path, validate=lambda model: {"box": {"AP": 0.5}, "mask": None})
    resumed.resume(load_checkpoint(tmp_path / "last.pt"))
    assert resumed.iteration == 12
    assert resumed.run().best == 0.5
    assert load_checkpoint(tmp_path / "best.pt").metrics["box"] == {"AP": 0.5}


def test_accumulation_equals_one_large_batch(toy: ModuleType) -> None:
    """Without layers that look at the batch as a whole, two half batches give the gradient of the whole one."""
    from aegl.engine.stepper import Stepper
    from aegl.types import Batch, Targets

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(12, 1)

        def forward(self, images: torch.Tensor, targets: Any) -> dict[str, torch.Tensor]:
            return {"loss": self.layer(images.flatten(1).float()).square().mean()}

    def cut(batch: Batch, rows: slice) -> Batch:
        targets = batch.targets
        assert targets is not None
        parts = Targets(*(getattr(targets, f)[rows] for f in ("boxes", "labels", "masks", "num_objects")))
        return Batch(batch.images[rows], batch.sizes[rows], batch.orig_sizes[rows], batch.image_index[rows], parts)

    whole = next(toy.batches(0, images=4, world=World()))
    results = []
    for parts in ([whole], [cut(whole, slice(0, 2)), cut(whole, slice(2, 4))]):
        torch.manual_seed(0)
        model = Linear().double().float()
        stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=1.0), world=World())
        terms, images, failed = stepper.step(parts, lr=1e-6)
        assert not failed
        assert images.tolist() == whole.image_index.tolist()
        results.append((terms["loss"], model.layer.weight.detach()))
    assert torch.allclose(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1], atol=1e-6)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains_float32_weights(toy: ModuleType, tmp_path: Path, amp: str) -> None:
    toy.build(tmp_path, amp=amp).run()
    checkpoint = load_checkpoint(tmp_path / "last.pt")
    assert checkpoint.training is not None
    assert checkpoint.model["body.0.weight"].dtype == torch.float32
    assert bool(checkpoint.training.scaler) == (amp == "fp16")


def test_the_progress_bar_is_closed_however_training_ends(toy: ModuleType, tmp_path: Path) -> None:
    class Bar:
        def __init__(self) -> None:
            self.depth, self.done, self.shown, self.evaluations = 0, 0, set(), []

        def start(self, name: str, total: int, unit: str) -> None:
            self.depth, self.done = self.depth + 1, 0

        def update(self, n: int, **fields: float) -> None:
            assert self.depth == 1
            self.done += n
            self.shown |= set(fields)

        def message(self, text: str) -> None: ...

        def figures(self, title: str, figures: Any, before: Any) -> None:
            self.evaluations.append((title, figures, before))

        def finish(self) -> None:
            self.depth -= 1

    bar = Bar()
    found = {"box": {"AP": 0.25, "APr": 0.1}, "mask": {"AP": None, "APr": None}}
    summary = {"protocol": "lvis", "split": "val", "bands": ["r"], "AP50": 0.5, **found}
    earlier = {"box": {"AP": 0.2}}
    options: dict[str, Any] = {"validate": lambda model: summary, "val_every": 6}
    toy.build(tmp_path, callbacks=[ProgressLogger(bar, before=earlier)], **options).run()  # type: ignore[arg-type]
    assert (bar.depth, bar.done) == (0, 12)
    assert {"loss", "loss_cls", "lr", "images_per_s", "memory_mb", "eta_s"} <= bar.shown
    assert bar.evaluations == [("step 6 (lvis, val)", found, earlier), ("step 12 (lvis, val)", found, found)]
    broken = Bar()
    with pytest.raises(RunError):
        toy.build(tmp_path, callbacks=[ProgressLogger(broken)], bad_step=3).run()  # type: ignore[arg-type]
    assert broken.depth == 0


def test_fitness() -> None:
    assert fitness({"box": {"AP": 0.2}, "mask": {"AP": 0.1}}) == 0.1
    assert fitness({"box": {"AP": 0.2}, "mask": None}) == 0.2
    assert fitness({"box": {"AP": None}, "mask": {"AP": None}}) == -1


def test_checkpoints_by_time(toy: ModuleType, tmp_path: Path) -> None:
    class Saved(Callback):
        def __init__(self) -> None:
            self.iterations: list[int] = []

        def on_checkpoint(self, iteration: int, path: Path) -> None:
            self.iterations.append(iteration)

    saved = Saved()
    toy.build(tmp_path, callbacks=[saved], checkpoint_every=100, checkpoint_seconds=0.0).run()
    assert saved.iterations == [3, 6, 9, 12, 12]


def test_the_share_of_waiting_for_data(toy: ModuleType, tmp_path: Path) -> None:
    class Shares(Callback):
        def __init__(self) -> None:
            self.found: list[float] = []

        def on_log(self, record: LogRecord) -> None:
            self.found.append(record.data_share)

    def slow(consumed: int) -> Iterator[Any]:
        for batch in toy.batches(consumed, images=4, world=World()):
            time.sleep(0.05)
            yield batch

    quick, starved = Shares(), Shares()
    toy.build(tmp_path / "a", callbacks=[quick]).run()
    toy.build(tmp_path / "b", callbacks=[starved], open_loader=slow).run()
    assert all(0 <= share <= 1 for share in quick.found)
    assert min(starved.found) > 0.5 > sum(quick.found) / len(quick.found)
