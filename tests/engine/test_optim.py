"""Optimiser groups, learning rate, moving average, generators, devices."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from aegl.engine import rng
from aegl.engine.distributed import resolve_device
from aegl.engine.ema import ModelEma
from aegl.engine.optim import build_optimizer, parameter_groups, set_lr
from aegl.engine.schedule import Schedule
from aegl.errors import ConfigError


def test_norms_biases_and_position_tables_can_go_undecayed() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2, bias=False).requires_grad_(False))
    model.register_parameter("relative_position_bias_table", nn.Parameter(torch.zeros(4, 2)))
    decayed, plain = parameter_groups(model, weight_decay=0.1, norm_decay=False)
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 3)]
    assert sorted(tuple(p.shape) for p in plain["params"]) == [(2,), (2,), (2,), (4, 2)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    (everything,) = parameter_groups(model, weight_decay=0.1, norm_decay=True)
    assert len(everything["params"]) == 5


def test_optimizers() -> None:
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.01, "norm_decay": True}
    sgd = build_optimizer(nn.Linear(2, 2), name="sgd", nesterov=True, **options)
    adamw = build_optimizer(nn.Linear(2, 2), name="adamw", nesterov=False, **options)
    assert isinstance(sgd, torch.optim.SGD) and sgd.param_groups[0]["nesterov"]
    assert isinstance(adamw, torch.optim.AdamW) and adamw.param_groups[0]["betas"] == (0.8, 0.999)
    set_lr(sgd, 0.5)
    assert sgd.param_groups[0]["lr"] == 0.5


def test_step_schedule_with_warmup() -> None:
    schedule = Schedule(0.02, 24, "step", warmup_iterations=4, warmup_factor=0.5, milestones=(16 / 24, 22 / 24))
    rates = [schedule(i) / 0.02 for i in range(24)]
    assert rates[:5] == pytest.approx([0.5, 0.625, 0.75, 0.875, 1])
    assert rates[4:16] == pytest.approx([1] * 12)
    assert rates[16:22] == pytest.approx([0.1] * 6)
    assert rates[22:] == pytest.approx([0.01] * 2)


@given(
    kind=st.sampled_from(["step", "cosine", "constant"]),
    iterations=st.integers(1, 200),
    warmup=st.integers(0, 300),
)
def test_schedule_stays_between_zero_and_peak(kind: Any, iterations: int, warmup: int) -> None:
    schedule = Schedule(0.1, iterations, kind, warmup_iterations=warmup, milestones=(0.5,))
    rates = [schedule(i) for i in range(iterations)]
    assert all(0 <= rate <= 0.1 for rate in rates)
    rising = rates[: min(warmup, iterations)]
    if kind == "constant":
        assert rising == sorted(rising)
    falling = rates[warmup:]
    assert falling == sorted(falling, reverse=True)


def test_cosine_ends_near_zero() -> None:
    schedule = Schedule(1.0, 100, "cosine", warmup_iterations=20)
    assert schedule(20) == 1.0
    assert schedule(60) == pytest.approx(0.5)
    assert schedule(99) < 0.001


def test_average_follows_weights_and_copies_state() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.register_buffer("limits", torch.tensor([float("-inf"), 1.0]))
    ema = ModelEma(model, decay=0.5)
    start = ema.model[0].weight.clone()  # type: ignore[index]
    with torch.no_grad():
        model[0].weight.add_(1.0)
        model[1].running_mean.add_(2.0)  # type: ignore[union-attr]
        model[1].num_batches_tracked.add_(3)  # type: ignore[union-attr]
    ema.update(model)
    share = 1 - 2 / 11  # the first update forgets most of the start
    assert torch.allclose(ema.model[0].weight, start + share)  # type: ignore[index]
    assert torch.allclose(ema.model[1].running_mean, torch.full((2,), 2 * share))  # type: ignore[index]
    assert ema.model[1].num_batches_tracked == 3  # type: ignore[index]
    assert torch.equal(ema.model.limits, torch.tensor([float("-inf"), 1.0]))
    other = ModelEma(model, decay=0.5)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 1
    assert torch.equal(other.model[0].weight, ema.model[0].weight)  # type: ignore[index]


def test_generators_go_on_where_they_were() -> None:
    cpu = torch.device("cpu")

    def draw() -> list[float]:
        normal = [random.gauss(0, 1), float(np.random.standard_normal())]
        return [*normal, random.random(), float(np.random.rand()), float(torch.rand(()))]

    rng.seed_all(5, rank=1)
    draw()  # leaves a cached second normal number in Python and NumPy
    state = rng.get_state(cpu)
    expected = [draw(), draw()]
    rng.seed_all(6)
    rng.set_state(state, cpu)
    with rng.preserved(cpu):
        draw()
    assert [draw(), draw()] == expected


def test_ranks_draw_different_numbers() -> None:
    first = []
    for rank in (0, 1):
        rng.seed_all(3, rank)
        first.append(float(torch.rand(())))
    assert first[0] != first[1]


def test_devices() -> None:
    assert resolve_device("cpu").type == "cpu"
    for wrong in ("gpu", "mps", "cuda:x"):
        with pytest.raises(ConfigError, match=f"device={wrong}: must be auto, cpu, cuda or cuda:N"):
            resolve_device(wrong)
    if not torch.cuda.is_available():
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(ConfigError, match="use device=cpu"):
            resolve_device("cuda")
