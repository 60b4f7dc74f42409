"""What holds for every method, found by looking into ``cfg/method``: training, resuming, several processes, export.

A new method is tested here by existing.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from aegl.config import Config, load_config, shipped
from aegl.engine.build import train
from aegl.engine.callbacks import Callback
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.restore import rebuild_model
from aegl.engine.signals import StoppedError
from aegl.errors import ConfigError
from aegl.export.pipeline import export_and_prove
from aegl.longtail.classifiers import output_layers
from aegl.longtail.options import option_model
from aegl.longtail.parts import NONE, REGISTRIES
from aegl.models.mask_rcnn import MaskRCNN
from aegl.progress import SilentProgress

METHODS = shipped.available("method")
TINY: dict[str, Any] = {
    "data": "shapes_lt",
    "model": "mini",
    "shapes": {"classes": 6, "max_instances": 10, "imbalance": 10, "val_per_class": 1, "imgsz": 64},
    "neck.channels": 16,
    "box.hidden": 32,
    "mask.channels": 8,
    "rpn.pre_nms_train": 50,
    "rpn.post_nms_train": 30,
    "rpn.pre_nms_test": 50,
    "rpn.post_nms_test": 30,
    "roi.batch_per_image": 32,
    "imgsz": 64,
    "max_size": 64,
    "train_imgsz": [64],
    "batch": 4,
    "iterations": 6,
    "warmup_iterations": 0,
    "lr": 0.01,
    "checkpoint_every": 3,
    "log_every": 3,
    "max_det": 20,
    "workers": 0,
    "device": "cpu",
}


class StopAt(Callback):
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_step_end(self, iteration: int) -> None:
        if iteration == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)


def tiny(method: str, project: Path, **changes: Any) -> Config:
    """The method on the tiny set; its own stages have the length of the whole."""
    return load_config({**TINY, "method": method, "stage.length": 1.0, "project": str(project), **changes})


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of segments, for the method that pastes."""
    folder = tmp_path_factory.mktemp("segments")
    (folder / "1").mkdir()
    Image.new("RGBA", (12, 9), (200, 30, 30, 255)).save(folder / "1" / "a.png")
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Checkpoints to start from, for methods that go on from another: by kind of the classifier."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("start")
    return {
        kind: train(tiny("softmax_ce", folder, **{"box.classifier": kind, "iterations": 2}), SilentProgress())["best"]
        for kind in ("linear", "cosine")
    }


@pytest.fixture(scope="module", params=METHODS)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, segments: Path, start: dict[str, str]
) -> tuple[Config, dict[str, Any]]:
    """A method's configuration and what its unbroken run gave."""
    keys: dict[str, Any] = {}
    plain = load_config({"method": request.param})
    if plain.paste.folder is not None:
        keys["paste.folder"] = str(segments)
    if plain.stage.after is not None:
        keys["weights"] = start["cosine" if "cosine" in plain.stage.after else "linear"]
    config = tiny(request.param, tmp_path_factory.mktemp("runs"), **keys)
    return config, train(config, SilentProgress())


class Answers(nn.Module):
    """What a method may change of a detector that is in use: what its heads make of pooled regions."""

    def __init__(self, model: MaskRCNN) -> None:
        super().__init__()
        self.box_head, self.mask_head = model.box_head, model.mask_head

    def forward(self, boxes: Tensor, masks: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        logits, offsets = self.box_head(boxes)
        return self.box_head.scores(logits), offsets, self.mask_head(masks, labels)


def graph_of(model: MaskRCNN) -> str:
    """Every operation of the heads in use, with the names and shapes of what it reads."""
    rows, channels = 2, model.mask_head.convs[0].in_channels
    pooled = [torch.zeros(rows, channels, *2 * [pool.output_size]) for pool in (model.box_pool, model.mask_pool)]
    program = torch.export.export(Answers(model), (*pooled, torch.zeros(rows, dtype=torch.long)))
    used = [node for node in program.graph.nodes if node.op != "placeholder" or node.users]
    return "\n".join(f"{node.format_node()} {node.meta.get('val')}" for node in used)


def is_first(graph: str, folder: Path) -> bool:
    """Whether no other method of this test run, in whichever process, had the same graph."""
    try:
        (folder / "graphs" / hashlib.sha256(graph.encode()).hexdigest()).mkdir(parents=True)
    except FileExistsError:
        return False
    return True


@torch.no_grad()
def decide(model: MaskRCNN) -> None:
    """Make a model of six steps answer as decidedly as a trained one: near ties may fall either way in two runtimes."""
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    decided = [(layer, 1.0) for layer in output_layers(model.box_head.classifier)]
    for layer, deviation in [
        (model.rpn.objectness, 2.0),
        (model.rpn.deltas, 0.3),
        *decided,
        (model.box_head.regressor, 1),
    ]:
        seen: list[Tensor] = []
        hook = layer.register_forward_hook(lambda *call, to=seen: to.append(call[2].transpose(0, 1).flatten(1)))
        model(images)
        hook.remove()
        columns = torch.cat(seen, dim=1)
        middle = columns.mean(1)
        factor = deviation / float((columns - middle[:, None]).std())
        if hasattr(layer, "temperature"):
            layer.temperature *= factor
        else:
            layer.weight.mul_(factor)
        layer.bias.copy_(factor * (layer.bias - middle))


def test_it_trains_to_finite_weights(case: tuple[Config, dict[str, Any]]) -> None:
    config, result = case
    assert result["iterations"] == config.iterations
    checkpoint = load_checkpoint(result["last"])
    assert all(tensor.isfinite().all() for tensor in checkpoint.model.values())
    assert result["metrics"]["box"]["AP"] is not None


def test_a_resumed_run_ends_as_the_unbroken_one(case: tuple[Config, dict[str, Any]]) -> None:
    config, result = case
    interrupted = config.model_copy(update={"name": "interrupted"})
    with pytest.raises(StoppedError):
        train(interrupted, SilentProgress(), (StopAt(4),))
    again = train(interrupted.model_copy(update={"resume": True, "weights": None}), SilentProgress())
    a, b = load_checkpoint(result["last"]).model, load_checkpoint(again["last"]).model
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_it_exports_with_the_same_answers_and_without_its_training_state(
    case: tuple[Config, dict[str, Any]], tmp_path: Path, shared_folder: Path
) -> None:
    config, result = case
    checkpoint = load_checkpoint(result["best"])
    model, meta = rebuild_model(checkpoint, config.model_copy(update={"conf": 1e-4}))
    if not is_first(graph_of(model), shared_folder):
        return  # what is exported is the same, and an export takes half a minute
    decide(model)
    exported = export_and_prove(
        model,
        meta,
        tmp_path / "x.onnx",
        config=config.model_dump(mode="json"),
        opset=None,
        dynamic=True,
        parity=True,
        progress=SilentProgress(),
    )
    assert exported["parity"]["passed"] is True, json.dumps(exported["parity"])
    state = [name for part in model.box_head.method_parts() for name, _ in part.named_buffers()]
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert exported["megabytes"] * 2**20 < 4.4 * weights + 300_000, state


def test_its_bad_options_are_refused() -> None:
    for kind, registry in REGISTRIES.items():
        for name in registry:
            for option in option_model(registry[name]).model_fields:
                with pytest.raises(ConfigError, match=rf"{kind}\.{option}="):
                    registry.validate(name, {option: object()})
            with pytest.raises(ConfigError, match=rf"{kind}\.no_such_option: unknown option of {name}"):
                registry.validate(name, {"no_such_option": 1})


@pytest.mark.parametrize("name", METHODS)
def test_its_file_says_what_it_is(name: str) -> None:
    content = shipped.read("method", name)
    config = load_config({"method": name})
    assert {"paper", "year", "venue", "touches", "published"} <= set(content["reference"])
    for kind, registry in REGISTRIES.items():
        chosen = getattr(config, kind)
        assert chosen.name == NONE or chosen.name in registry
    assert yaml.safe_load(yaml.safe_dump(content)) == content
