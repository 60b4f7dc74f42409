"""Methods that keep features: a detector trains with them, resumes to the same numbers, and is used without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from aegl.config import Config
from aegl.engine.checkpoint import Checkpoint, TrainingState, is_training_state, load_checkpoint, save_checkpoint
from aegl.engine.distributed import World
from aegl.engine.ema import ModelEma
from aegl.engine.optim import build_optimizer
from aegl.engine.restore import rebuild_model, start_from
from aegl.engine.stepper import Stepper
from aegl.models.factory import build_model
from aegl.types import Batch, Targets

TINY: dict[str, Any] = {
    "pretrained": False,
    "backbone": {"name": "test_resnet", "norm": "batch", "frozen_stages": -1},
    "neck": {"channels": 16, "first_level": 3, "extra_level": False, "anchor_scale": 4.0, "anchor_ratios": [1.0]},
    "rpn": {"pre_nms_train": 30, "pre_nms_test": 30, "post_nms_train": 15, "post_nms_test": 15},
    "roi": {"batch_per_image": 12},
    "box": {"hidden": 16, "pool": 3},
    "mask": {"channels": 8, "convs": 1, "pool": 4},
    "max_det": 5,
    "conf": 0.01,
}
METHODS: dict[str, dict[str, Any]] = {
    "loce": {"loss": {"name": "loce"}, "memory": {"name": "loce", "queue_size": 20, "warmup": 0.0}},
    "fasa": {"loss": {"name": "softmax_ce"}, "auxiliary": {"name": "fasa"}},
    "balms": {"loss": {"name": "balms", "meta_rows": 8, "prior_prob": 0.3}},
    "all": {
        "loss": {"name": "loce"},
        "memory": {"name": "loce", "dtype": "float16", "device": "model", "warmup": 0.0},
        "auxiliary": {"name": "fasa", "start_epoch": 0},
    },
}
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)


def make_stepper(toy: ModuleType, method: str, *, ema: bool = True) -> Stepper:
    torch.manual_seed(0)
    model = build_model(Config.model_validate({**TINY, **METHODS[method]}), toy.STATISTICS)
    options: dict[str, Any] = {"nesterov": False, "weight_decay": 0.0, "norm_decay": False}
    optimizer = build_optimizer(model, name="sgd", lr=0.01, momentum=0.9, **options)
    model.train()
    return Stepper(model, optimizer, world=World(), ema=ModelEma(model, 0.9) if ema else None)


def make_batch(step: int) -> Batch:
    """Two images, of two objects and of one; in every third step neither has any."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=generator)
    corner = 30 * torch.rand(2, 2, 2, generator=generator)
    boxes = torch.cat([corner, corner + 10 + 20 * torch.rand(2, 2, 2, generator=generator)], dim=2)
    labels = torch.randint(0, 3, (2, 2), generator=generator)
    boxes[1, 1], labels[1, 1] = 0, -1
    count = torch.tensor([2, 1])
    if step % 3 == 2:
        boxes, labels, count = boxes[:, :0], labels[:, :0], 0 * count
    masks = torch.ones(2, boxes.shape[1], 8, 8, dtype=torch.uint8)
    size = torch.tensor([[64, 96]] * 2)
    return Batch(images, size, size, torch.arange(2), Targets(boxes, labels, masks, count))


def train(stepper: Stepper, steps: range) -> list[Tensor]:
    found = []
    for step in steps:
        stepper.model.box_head.step_begin(step / 8, 0.5 * step)  # type: ignore[operator, union-attr]
        terms = stepper.step([make_batch(step)], 0.01).terms
        found.append(torch.stack(list(terms.values())))
    return found


def make_checkpoint(toy: ModuleType, stepper: Stepper, method: str) -> Checkpoint:
    state = TrainingState(**stepper.state_dict(), iteration=4, consumed_batches=4, rng=[], validated=-1, best=None)
    config = Config.model_validate({**TINY, **METHODS[method]}).model_dump(mode="json")
    meta = replace(toy.META, conf=0.01, max_det=5, stride=32)
    return Checkpoint(dict(stepper.model.state_dict()), meta, toy.STATISTICS, config, 4, {}, state)


@EVERY_METHOD
def test_a_resumed_run_goes_on_with_the_same_bits(toy: ModuleType, method: str, tmp_path: Path) -> None:
    whole = make_stepper(toy, method)
    losses = train(whole, range(4))
    assert all(each.isfinite().all() for each in losses)
    save_checkpoint(make_checkpoint(toy, whole, method), tmp_path / "last.pt")
    loaded = load_checkpoint(tmp_path / "last.pt")
    resumed = make_stepper(toy, method)
    train(resumed, range(2))  # whatever it has seen before is replaced
    resumed.model.load_state_dict(loaded.model)
    assert loaded.training is not None
    resumed.load_state_dict({name: getattr(loaded.training, name) for name in ("optimizer", "scaler", "ema")})
    results = []
    for stepper in (whole, resumed):
        torch.manual_seed(4)
        results.append((train(stepper, range(4, 8)), stepper.model.state_dict(), stepper.ema.model.state_dict()))
    (one, *states), (other, *other_states) = results
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for state, other_state in zip(states, other_states, strict=True):
        assert state.keys() == other_state.keys()
        assert all(torch.equal(tensor, other_state[name]) for name, tensor in state.items())


@pytest.mark.parametrize("ema", [False, True], ids=["plain", "averaged"])
@EVERY_METHOD
def test_what_is_for_use_holds_no_features_and_answers_alike(
    toy: ModuleType, method: str, ema: bool, tmp_path: Path
) -> None:
    stepper = make_stepper(toy, method, ema=ema)
    train(stepper, range(3))
    checkpoint = make_checkpoint(toy, stepper, method)
    kept = [name for name in checkpoint.model if is_training_state(name)]
    assert any(checkpoint.model[name].numel() >= 16 for name in kept)
    save_checkpoint(checkpoint.for_inference(), tmp_path / "best.pt")
    save_checkpoint(checkpoint, tmp_path / "last.pt")
    best = load_checkpoint(tmp_path / "best.pt")
    assert best.model.keys() == checkpoint.model.keys() - set(kept)
    images = make_batch(0).images
    with torch.no_grad():
        expected = stepper.evaluated_model().eval()(images)
        for each in (best, load_checkpoint(tmp_path / "last.pt")):
            found = rebuild_model(each)[0](images)
            assert all(torch.equal(getattr(found, name), value) for name, value in vars(expected).items())
    assert sum(int(n) for n in expected.num_detections) > 0


def test_another_run_takes_over_no_state(toy: ModuleType) -> None:
    stepper = make_stepper(toy, "all", ema=False)
    train(stepper, range(3))
    checkpoint = make_checkpoint(toy, stepper, "all")
    fresh = make_stepper(toy, "all", ema=False).model
    start_from(fresh, checkpoint.meta, checkpoint, classifier="linear", reset=[])  # type: ignore[arg-type]
    assert torch.equal(fresh.box_head.fc1.weight, stepper.model.box_head.fc1.weight)  # type: ignore[union-attr]
    assert not fresh.box_head.memory.rings.filled.any()  # type: ignore[union-attr]
    assert not fresh.box_head.auxiliary.moments.seen.any()  # type: ignore[union-attr]
    assert fresh.box_head.loss.mean_score.unique().numel() == 1  # type: ignore[union-attr]


def test_remembered_regions_join_the_batch(toy: ModuleType) -> None:
    stepper = make_stepper(toy, "loce", ema=False)
    seen = []
    head = stepper.model.box_head
    head.loss.observe = seen.append  # type: ignore[union-attr, method-assign, assignment]
    train(stepper, range(3))
    assert head.memory.rings.filled.sum() > 0  # type: ignore[union-attr]
    for rows in seen:
        remembered = rows.labels[rows.remembered]
        assert 0 < len(remembered) <= 32 and (remembered < 3).all()
        assert (rows.instance[rows.remembered] == -1).all() and len(rows.logits) == len(rows.labels)
