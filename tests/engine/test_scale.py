"""What changes with the number of images and processes of a step, and what must not."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from aegl.config import Config, load_config
from aegl.data.samplers import EpochSampler, RepeatFactors
from aegl.engine.assembly import check_norm, peak_lr, schedule_of
from aegl.engine.beginning import find_beginning
from aegl.engine.distributed import World
from aegl.engine.optim import build_optimizer
from aegl.engine.runs import ARGS_FILE, TRAINED_FILE
from aegl.engine.stepper import Stepper
from aegl.errors import ConfigError
from aegl.models.backbone import TimmBackbone
from aegl.types import Batch


def test_lr_is_never_changed_unasked_and_never_kept_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aegl")
    schedule = schedule_of(Config(batch=64, warmup_iterations=0, lr_schedule="constant"), 1000)
    assert schedule(0) == 0.02
    (told,) = caplog.messages
    assert all(fact in told for fact in ("batch=64", "lr=0.02", "16 images", "0.08", "lr_scaling=linear"))


def test_lr_scales_with_the_batch_on_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aegl")
    config = Config(batch=8, lr_scaling="linear", warmup_iterations=0, lr_schedule="constant")
    assert peak_lr(config) == schedule_of(config, 1000)(0) == 0.01
    assert "0.01 out of 0.02" in caplog.text


@pytest.mark.parametrize("scaling", ["none", "linear"])
def test_the_schedules_own_batch_needs_no_word(caplog: pytest.LogCaptureFixture, scaling: str) -> None:
    caplog.set_level(logging.INFO, "aegl")
    assert schedule_of(load_config({"lr_scaling": scaling}), 10000).lr == 0.02
    assert not caplog.messages


class _Mean(nn.Module):
    """A detector's loss in small: the mean over the images of what each of them gives."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(5).requires_grad_(False), nn.Linear(5, 1))

    def train(self, mode: bool = True) -> _Mean:
        super().train(mode)
        self.layers[1].eval()
        return self

    def forward(self, images: torch.Tensor, targets: object) -> dict[str, torch.Tensor]:
        return {"loss": self.layers(images.flatten(1).float() / 255).square().mean()}


def test_accumulated_batches_make_the_step_of_one_large_batch(toy: ModuleType) -> None:
    parts: list[Batch] = [batch for batch, _ in zip(toy.batches(0, images=3, world=World()), range(4), strict=False)]
    whole = Batch(*(torch.cat([getattr(part, name) for part in parts]) for name in _TENSORS), targets=None)  # type: ignore[arg-type]
    weights = []
    for batches in (parts, [whole]):
        torch.manual_seed(0)
        model = _Mean()
        keys = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4, "norm_decay": True}
        stepper = Stepper(model.train(), build_optimizer(model, name="sgd", **keys), world=World())
        for _ in range(3):
            stepper.step(batches, lr=0.1)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-7)


_TENSORS = ("images", "sizes", "orig_sizes", "image_index")


@pytest.mark.parametrize("size", [2, 8])
def test_an_epoch_is_shared_out_among_the_processes(size: int) -> None:
    """Together they see what one process would, and no draw twice."""
    factors = np.where(np.arange(40) % 5 == 0, 2.5, 1.0)
    rule = RepeatFactors(factors, np.zeros(0), np.zeros(0, dtype=np.int64))
    alone = EpochSampler(rule, 8, seed=3)
    shares = [EpochSampler(rule, 8 // size, seed=3, rank=rank, world_size=size) for rank in range(size)]
    streams, whole = [iter(share.batches(0)) for share in shares], iter(alone.batches(0))
    for _ in range(12):  # more than an epoch
        step = [key for stream in streams for key in next(stream)]
        assert sorted(step) == sorted(next(whole))
        assert len({(key.epoch, key.position) for key in step}) == len(step) == 8


def test_sync_norm_is_batch_norm_for_a_process_alone() -> None:
    torch.manual_seed(0)
    batch = TimmBackbone("test_resnet", pretrained=False, norm="batch", frozen_stages=0).train()
    torch.manual_seed(0)
    sync = TimmBackbone("test_resnet", pretrained=False, norm="sync", frozen_stages=0).train()
    kinds = {type(module) for module in sync.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    assert kinds and all(issubclass(kind, nn.SyncBatchNorm) for kind in kinds)
    assert list(batch.state_dict()) == list(sync.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert all(map(torch.equal, batch(images), sync(images)))
    stem = [module for module in sync._frozen for module in module.modules()]
    assert stem and not any(module.training for module in stem)


def test_sync_norm_is_refused_where_pytorch_has_none() -> None:
    config = load_config({"backbone.norm": "sync"})
    with pytest.raises(ConfigError, match=r"backbone\.norm=sync.*CUDA"):
        check_norm(config, World(size=2))
    check_norm(config, World())


def test_auto_goes_on_with_what_has_begun_and_only_that(tmp_path: Path) -> None:
    config = Config(project=str(tmp_path), name="x", data="d", resume="auto")
    new = find_beginning(config, World(), {})
    assert (new.run, new.checkpoint, new.config.exist_ok) == (None, None, False)
    (tmp_path / "x").mkdir()
    with pytest.raises(ConfigError, match="exists already"):  # by something that is no run
        find_beginning(config, World(), {})
    (tmp_path / "x" / ARGS_FILE).touch()
    killed_at_once = find_beginning(config, World(), {})
    assert killed_at_once.run is None and killed_at_once.config.exist_ok
    with pytest.raises(ConfigError, match="resume=auto: needs name="):
        load_config({"resume": "auto"})


def test_auto_gives_the_record_of_a_finished_run(trained_mini: Path) -> None:
    config = Config(project=str(trained_mini.parent), name=trained_mini.name, data="d", resume="auto")
    found = find_beginning(config, World(), {})
    assert found.finished == {"run": "as recorded", "metrics": {}}
    with pytest.raises(ConfigError, match=r"batch=8: .* was started with"):
        find_beginning(config, World(), {"batch": 8})


def test_the_commands_of_the_guide_are_sound() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text().replace("\\\n", " ")
    found = re.findall(r"(?:aegl_cli,? |aegl )train,? ([^\]]*?resume=auto)", guide)
    assert len(found) == 5
    for words in found:
        keys = dict(word.split("=", 1) for word in words.replace(",", " ").split())
        config = load_config(keys)
        assert (config.resume, config.name, config.epochs) == ("auto", "r50", 24)


@pytest.fixture
def trained_mini(tmp_path: Path) -> Path:
    """The files of a finished run that are looked at."""
    run = tmp_path / "x"
    (run / "weights").mkdir(parents=True)
    (run / "weights" / "last.pt").touch()
    (run / ARGS_FILE).write_text("data: shapes_lt\nmodel: mini\n")
    (run / TRAINED_FILE).write_text('{"run": "as recorded", "metrics": {}}')
    return run
