"""Compiled, with activations computed twice: the same numbers, and clear words where it cannot be."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

from aegl.config import load_config
from aegl.engine import speed
from aegl.engine.optim import build_optimizer
from aegl.errors import ConfigError
from aegl.longtail.statistics import ClassStatistics
from aegl.models.backbone import TimmBackbone
from aegl.models.factory import build_model

CPU = torch.device("cpu")


def gradients(backbone: TimmBackbone, images: torch.Tensor) -> dict[str, torch.Tensor]:
    backbone.zero_grad()
    torch.stack([feature.square().mean() for feature in backbone.train()(images)]).sum().backward()
    return {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv2_035", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_activations_computed_twice_give_the_same_gradients(name: str) -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone(name, pretrained=False, frozen_stages=1)
    images = torch.randn(1, 3, 64, 96)
    expected = gradients(backbone, images)
    backbone.checkpoint_activations()
    found = gradients(backbone, images)
    assert expected.keys() == found.keys() and expected
    for key, gradient in expected.items():
        assert torch.allclose(gradient, found[key], rtol=1e-4, atol=1e-7), key


def test_a_backbone_that_cannot_is_told() -> None:
    backbone = TimmBackbone("resnet10t", pretrained=False)
    backbone.body.set_grad_checkpointing = None
    with pytest.raises(ConfigError, match="checkpoint_activations=true: this backbone cannot"):
        backbone.checkpoint_activations()


@pytest.fixture
def model() -> Any:
    keys = {"model": "mini", "method": "fbs_aegl", "neck.channels": 16, "box.hidden": 32, "mask.channels": 8}
    counts = np.array([90, 30, 2])
    return build_model(load_config(keys), ClassStatistics(counts, counts, 100, np.array([2, 1, 0])))


@pytest.mark.slow
def test_a_compiled_model_has_the_same_names_numbers_and_free_sizes(model: Any) -> None:
    plain = copy.deepcopy(model).eval()
    speed.compile_parts(model.eval(), CPU)
    assert list(model.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        for side in (64, 96, 128):
            images = torch.randn(2, 3, side, side)
            for ours, theirs in zip(model._features(images), plain._features(images), strict=True):
                assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    assert list(copy.deepcopy(model).state_dict()) == list(plain.state_dict())  # as the average is made


def test_without_a_compiler_it_is_refused(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"compile=true: no C\+\+ compiler .*CXX=no-such-compiler"):
        speed.compile_parts(model, CPU)


@pytest.mark.parametrize(("name", "plain"), [("sgd", optim.SGD), ("adamw", optim.AdamW)])
def test_fused_optimisers_do_what_plain_ones_do(name: str, plain: Any) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 4), nn.Linear(5, 4)
    theirs.load_state_dict(ours.state_dict())
    fused = build_optimizer(ours, name=name, lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.01, norm_decay=True)
    assert fused.param_groups[0]["fused"]
    decay = {"momentum": 0.9} if name == "sgd" else {"betas": (0.9, 0.999)}
    other = plain(theirs.parameters(), lr=0.1, weight_decay=0.01, **decay)
    for _ in range(5):
        inputs = torch.randn(7, 5)
        for model, optimizer in ((ours, fused), (theirs, other)):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()))


def test_a_model_is_placed_where_it_is(model: Any) -> None:
    assert speed.place(model, CPU) is model
