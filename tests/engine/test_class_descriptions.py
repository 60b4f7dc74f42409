"""Trees and clusters of real runs: made before training, taken over with what was trained for them, kept on resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from aegl.config import Config, load_config
from aegl.data.class_descriptions import mean_masks
from aegl.engine.build import train
from aegl.engine.checkpoint import load_checkpoint, save_checkpoint
from aegl.engine.distributed import World
from aegl.engine.restore import rebuild_model
from aegl.engine.splits import open_splits
from aegl.errors import ConfigError
from aegl.longtail.clustering import k_means
from aegl.progress import SilentProgress

SMALL: dict[str, Any] = {
    "data": "shapes_lt",
    "model": "mini",
    "shapes": {"classes": 6, "max_instances": 12, "imbalance": 6, "val_per_class": 1, "imgsz": 64},
    "neck.channels": 16,
    "box.hidden": 32,
    "mask.channels": 8,
    "imgsz": 64,
    "max_size": 64,
    "train_imgsz": [64],
    "rpn.pre_nms_train": 50,
    "rpn.post_nms_train": 30,
    "batch": 2,
    "iterations": 2,
    "warmup_iterations": 0,
    "lr": 1e-6,
    "checkpoint_every": 1,
    "workers": 0,
    "device": "cpu",
}
FOREST = {
    "method": "softmax_ce",
    "loss": "forest_rcnn",
    "box.classifier": "branches",
    "mask.class_agnostic": False,
    "mask.clusters": 2,
}
AHRL = {"method": "softmax_ce", "loss": "ahrl", "loss.clusters": 3}
PARENTS = "box_head.loss.parents"


def configure(project: Path, **changes: Any) -> Config:
    torch.set_num_threads(1)
    return load_config({**SMALL, "project": str(project), **changes})


def run(project: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """The weights that a run ends with."""
    return load_checkpoint(train(configure(project, **changes), SilentProgress())["last"]).model


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished run of softmax cross-entropy whose classifier has three groups of rows."""
    path = Path(train(configure(tmp_path_factory.mktemp("base"), method="softmax_ce"), SilentProgress())["last"])
    checkpoint = load_checkpoint(path)
    rows = checkpoint.model["box_head.classifier.weight"]
    rows[:6] = torch.eye(6, 32)[[0, 1, 2, 2, 1, 0]] + 0.01 * rows[:6]
    other = path.with_name("start.pt")
    save_checkpoint(replace(checkpoint, training=None), other)
    return str(other)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    splits = open_splits(configure(tmp_path_factory.mktemp("data")), World())
    return torch.from_numpy(mean_masks(splits.train))


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory, baseline: str) -> dict[str, Any]:
    config = configure(tmp_path_factory.mktemp("forest_rcnn"), **FOREST, weights=baseline)
    return train(config, SilentProgress())


def test_trees_are_made_of_the_baseline_and_the_data(
    forest: dict[str, Any], baseline: str, masks: torch.Tensor
) -> None:
    state, start = load_checkpoint(forest["last"]).model, load_checkpoint(baseline).model
    assert state[PARENTS].tolist()[0] == [1, 2, 3, 3, 2, 1, 0]
    assert state[PARENTS][1].tolist() == [*(1 + k_means(masks, 3)).tolist(), 0]
    assert torch.equal(state["mask_head.row_of_class"], k_means(masks, 2))
    # The branch of the classes goes on from the baseline; those of the trees are new.
    close = {"atol": 1e-4, "rtol": 0.0}
    torch.testing.assert_close(
        state["box_head.classifier.outputs.0.weight"], start["box_head.classifier.weight"], **close
    )
    torch.testing.assert_close(state["box_head.classifier.hidden.0.weight"], start["box_head.fc2.weight"], **close)


def test_a_finished_run_is_rebuilt_with_its_trees(forest: dict[str, Any]) -> None:
    checkpoint = load_checkpoint(forest["best"])
    model, _ = rebuild_model(checkpoint)
    for table in (PARENTS, "mask_head.row_of_class"):
        assert torch.equal(model.get_buffer(table), checkpoint.model[table])


@pytest.mark.parametrize("change", ["none", "fewer clusters", "fresh classifier", "other classes"])
def test_trees_come_along_with_what_was_trained_for_them(
    forest: dict[str, Any], tmp_path: Path, masks: torch.Tensor, change: str
) -> None:
    checkpoint = load_checkpoint(forest["last"])
    checkpoint.model[PARENTS] = marked = torch.tensor([[1, 1, 1, 2, 2, 3, 0], [3, 2, 1, 1, 1, 1, 0]])
    checkpoint.model["mask_head.row_of_class"] = torch.tensor([1, 1, 1, 1, 1, 0])
    if change == "other classes":
        checkpoint = replace(checkpoint, meta=replace(checkpoint.meta, names=tuple("abcdef")))
    save_checkpoint(checkpoint, tmp_path / "start.pt")
    keys: dict[str, Any] = {**FOREST, "weights": str(tmp_path / "start.pt")}
    if change == "fewer clusters":
        keys["loss.clusters"] = [3, 2]
    if change == "fresh classifier":
        keys["stage.reset"] = ["box_head.classifier"]
    if change == "other classes":
        keys["loss.trees"] = ["geometric"]
    state = run(tmp_path, **keys)
    assert torch.equal(state[PARENTS], marked) == (change == "none")
    own_masks = state["mask_head.row_of_class"].tolist() == [1, 1, 1, 1, 1, 0]
    assert own_masks == (change != "other classes")
    if change != "none":
        assert state[PARENTS][-1].tolist() == [*(1 + k_means(masks, int(state[PARENTS][-1].max()))).tolist(), 0]


def test_resuming_keeps_the_trees_it_has(forest: dict[str, Any], tmp_path: Path, baseline: str) -> None:
    config = configure(tmp_path, **FOREST, weights=baseline, name="x")
    last = Path(train(config, SilentProgress())["last"])
    checkpoint = load_checkpoint(last)
    assert torch.equal(checkpoint.model[PARENTS], load_checkpoint(forest["last"]).model[PARENTS])
    assert checkpoint.training is not None
    checkpoint.model[PARENTS] = marked = checkpoint.model[PARENTS].flip(0)
    arguments = last.parents[1] / "args.yaml"
    arguments.write_text(arguments.read_text().replace("iterations: 2\n", "iterations: 3\n"))
    save_checkpoint(replace(checkpoint, config={**checkpoint.config, "iterations": 3}), last)
    again = train(
        load_config({"project": str(tmp_path), "name": "x", "resume": True, "device": "cpu"}), SilentProgress()
    )
    assert again["iterations"] == 3
    assert torch.equal(load_checkpoint(again["last"]).model[PARENTS], marked)


def test_clusters_of_a_cosine_classifier_from_a_linear_baseline(baseline: str, tmp_path: Path) -> None:
    state = run(tmp_path, **AHRL, **{"box.classifier": "cosine"}, weights=baseline)
    assert state["box_head.loss.cluster"].tolist() == [0, 1, 2, 2, 1, 0]


def test_parents_of_a_file(tmp_path: Path, baseline: str) -> None:
    names = load_checkpoint(baseline).meta.names
    (tmp_path / "p.json").write_text(json.dumps(dict(zip(names, "xyyxzx", strict=True))))
    keys = {"loss.trees": ["lexical"], "loss.clusters": [3], "class_parents": str(tmp_path / "p.json")}
    assert run(tmp_path, **FOREST, **keys)[PARENTS].tolist() == [[1, 2, 2, 1, 3, 1, 0]]


def test_what_cannot_be_described_is_refused_before_training(tmp_path: Path, baseline: str) -> None:
    checkpoint = load_checkpoint(baseline)
    others = tmp_path / "others.pt"
    save_checkpoint(replace(checkpoint, meta=replace(checkpoint.meta, names=tuple("abcdef"))), others)
    bags = train(configure(tmp_path, method="bags", weights=baseline, name="bags"), SilentProgress())["last"]
    for keys, message in [
        (AHRL, r"loss\.name=ahrl: groups the classes by the rows of a trained classifier; give weights="),
        (FOREST, r"loss\.name=forest_rcnn: groups the classes .* give weights="),
        ({**AHRL, "weights": str(others)}, r"weights=.*others\.pt, loss\.name=ahrl: .* must be of the same classes"),
        ({**AHRL, "weights": bags}, r"that of method=bags has \d+ rows, not one per class"),
        ({**FOREST, "loss.trees": ["lexical"]}, r"class_parents: not given"),
    ]:
        with pytest.raises(ConfigError, match=message):
            run(tmp_path, **keys, name="refused")
        assert not (tmp_path / "refused").exists()
