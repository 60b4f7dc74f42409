"""Which layer wins, what stays of a layer, and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from aegl.config import complete_parts, load_config, resolve
from aegl.config.schema import Config as Schema
from aegl.config.shipped import available
from aegl.errors import ConfigError

LAYERS = ("data", "model", "schedule", "method", "recipe", "cfg", "arguments")
"""Weakest first, above the defaults."""
FILES = {
    "data/d": {"train": "t.json"},
    "model/r50": {},
    "method/fbs_aegl": {},
    "schedule/2x": {},
    "recipe/r": {},
}


def write(path: Path, content: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("strongest", range(-1, len(LAYERS)))
def test_the_strongest_layer_that_gives_a_key_wins(strongest: int, cfg_folder: Any, tmp_path: Path) -> None:
    rates = {layer: (k + 1) / 100 for k, layer in enumerate(LAYERS[: strongest + 1])}
    files = {}
    for name, content in FILES.items():
        kind = name.partition("/")[0]
        given = {"lr": rates[kind]} if kind in rates else {}
        files[name] = {**content, "config": given} if kind == "data" else {**content, **given}
    cfg_folder(files)
    overrides: dict[str, Any] = {"data": "d", "recipe": "r"}
    overrides["cfg"] = write(tmp_path / "my.yaml", {"lr": rates["cfg"]} if "cfg" in rates else {})
    if "arguments" in rates:
        overrides["lr"] = rates["arguments"]
    resolved = resolve(overrides)
    assert resolved.config.lr == (rates[LAYERS[strongest]] if strongest >= 0 else Schema().lr)
    where = {"cfg": overrides["cfg"], "arguments": "arguments"}
    name = next((f for f in FILES if strongest >= 0 and f.startswith(LAYERS[strongest])), "")
    assert resolved.origins["lr"] == (
        where.get(LAYERS[strongest], f"cfg/{name}.yaml") if strongest >= 0 else "defaults"
    )


def test_a_stronger_layer_leaves_the_other_keys_of_a_section(tmp_path: Path) -> None:
    file = write(tmp_path / "my.yaml", {"rpn": {"nms_iou": 0.6, "positive_iou": 0.8}})
    rpn = load_config({"cfg": file, "rpn.nms_iou": "0.5"}).rpn
    assert (rpn.nms_iou, rpn.positive_iou, rpn.negative_iou) == (0.5, 0.8, 0.3)


def test_nested_and_dotted_keys_say_the_same() -> None:
    nested = load_config({"backbone": {"frozen_stages": 2}, "loss": {"name": "fbs_aegl", "mu": 0.5}})
    assert nested == load_config({"backbone.frozen_stages": 2, "loss.name": "fbs_aegl", "loss.mu": 0.5})
    assert load_config({"loss": "softmax_ce"}).loss.name == "softmax_ce"


def test_a_model_names_its_schedule_and_anything_stronger_another(tmp_path: Path) -> None:
    assert load_config({"model": "swin_t"}).schedule == "adamw"
    assert load_config({"model": "swin_t"}).optimizer == "adamw"
    chosen = load_config({"model": "swin_t", "schedule": "1x"})
    assert (chosen.schedule, chosen.optimizer, chosen.epochs) == ("1x", "sgd", 12)
    by_file = load_config({"model": "swin_t", "cfg": write(tmp_path / "my.yaml", {"schedule": "1x"})})
    assert (by_file.schedule, by_file.optimizer) == ("1x", "sgd")


def test_a_recipe_names_all_the_rest_and_beats_them(cfg_folder: Any) -> None:
    cfg_folder(
        {
            **FILES,
            "model/m": {"schedule": "1x", "batch": 4},
            "method/s": {"loss": {"name": "softmax_ce"}},
            "schedule/1x": {"epochs": 12},
            "recipe/r": {"data": "d", "model": "m", "method": "s", "batch": 8},
        }
    )
    config = load_config({"recipe": "r"})
    assert (config.data, config.model, config.method, config.schedule) == ("d", "m", "s", "1x")
    assert (config.batch, config.epochs, config.loss.name) == (8, 12, "softmax_ce")
    assert load_config({"recipe": "r", "method": "fbs_aegl"}).loss.name == "fbs_aegl"
    cfg_folder({"recipe/r": {"model": "m", "schedule": "2x"}, "schedule/2x": {"epochs": 24}})
    config = load_config({"recipe": "r"})
    assert (config.schedule, config.epochs, config.batch) == ("2x", 24, 4)


@pytest.mark.parametrize("kind", ["data", "model", "method", "schedule"])
def test_a_file_must_not_choose_what_is_not_its_business(kind: str, cfg_folder: Any) -> None:
    chosen = {"recipe": "r"}
    files = {**FILES, "model/m": {}}
    cfg_folder({**files, f"{kind}/x": {"config": chosen, "train": "t"} if kind == "data" else chosen})
    with pytest.raises(ConfigError, match=rf"recipe=r: a {kind} file cannot choose it \[cfg/{kind}/x.yaml\]"):
        load_config({kind: "x"})


def test_epochs_and_iterations_silence_each_other_across_layers(tmp_path: Path) -> None:
    by_file = write(tmp_path / "my.yaml", {"iterations": 90})
    config = load_config({"cfg": by_file})
    assert (config.epochs, config.iterations) == (None, 90)
    config = load_config({"cfg": by_file, "epochs": "3"})
    assert (config.epochs, config.iterations) == (3, None)


def test_two_lengths_in_one_layer_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"epochs=3.0, iterations=4: two lengths .*\[arguments\]"):
        load_config({"epochs": "3.0", "iterations": "4"})


class TestSaved:
    """An ``args.yaml`` stands alone, until another model, method or data set is laid over it."""

    def test_it_stands_whatever_has_become_of_the_shipped_files(
        self, saved: Any, cfg_folder: Any, tmp_path: Path
    ) -> None:
        cfg_folder({**FILES, "schedule/2x": {"epochs": 24, "lr": 0.5}, "model/m": {"batch": 4}})
        config = load_config({"model": "m"})
        path = saved(config)
        cfg_folder({"schedule/2x": {"epochs": 7, "lr": 0.1}})
        (tmp_path / "shipped" / "model" / "m.yaml").unlink()
        cfg_folder({})
        assert load_config({}).lr == 0.1
        assert load_config({"cfg": path}) == config

    @pytest.mark.parametrize("new", available("model"))
    def test_nothing_of_the_old_model_stays(self, new: str) -> None:
        for old in available("model"):
            args = complete_parts(load_config({"model": old})).model_dump()
            assert load_config({"model": new}, base=args) == complete_parts(load_config({"model": new})), old

    def test_nothing_of_the_old_model_stays_of_a_file(self, saved: Any) -> None:
        path = saved(complete_parts(load_config({"model": "swin_t"})))
        assert load_config({"cfg": path, "model": "mini"}) == complete_parts(load_config({"model": "mini"}))

    @pytest.mark.parametrize("kind", ["data", "schedule", "method"])
    def test_nothing_of_other_replaced_files_stays(self, kind: str) -> None:
        for old in available(kind):
            for new in available(kind):
                args = load_config({kind: old}).model_dump()
                assert load_config({kind: new}, base=args) == load_config({kind: new}), f"{old} -> {new}"

    def test_what_the_user_had_changed_stays(self, saved: Any) -> None:
        changed = {"batch": "4", "rpn.nms_iou": "0.6", "data": "coco", "method": "softmax_ce", "name": "mine"}
        path = saved(load_config({"model": "swin_t", **changed}))
        assert load_config({"cfg": path, "model": "r18"}) == load_config({"model": "r18", **changed})

    def test_a_schedule_chosen_for_the_old_model_stays_one_named_by_it_does_not(self, saved: Any) -> None:
        path = saved(load_config({"model": "swin_t", "schedule": "1x"}))
        assert load_config({"cfg": path, "model": "r50"}).schedule == "1x"
        path = saved(load_config({"model": "swin_t"}))
        assert load_config({"cfg": path, "model": "r50"}).schedule == "2x"

    def test_the_same_name_again_changes_nothing(self, saved: Any) -> None:
        config = load_config({"model": "mini", "box.hidden": "64"})
        assert load_config({"cfg": saved(config), "model": "mini"}) == config

    def test_a_base_lies_below_the_file_and_the_arguments(self, tmp_path: Path) -> None:
        base = load_config({"model": "mini", "batch": 4, "flip": 0.1, "workers": 0}).model_dump()
        file = write(tmp_path / "my.yaml", {"flip": 0.2, "workers": 1})
        config = load_config({"cfg": file, "workers": 3}, base=base)
        assert (config.model, config.batch, config.flip, config.workers) == ("mini", 4, 0.2, 3)

    def test_a_base_without_some_keys_still_names_its_model(self) -> None:
        base = load_config({"model": "mini", "lr": 0.3}).model_dump()
        del base["workers"]
        config = load_config({}, base=base)
        assert config.lr == 0.3 and config.backbone.name == "test_resnet"


class TestLossOptions:
    """Hyper-parameters hold for the loss they were written for."""

    @pytest.mark.parametrize("other", [{"method": "softmax_ce"}, {"loss": "softmax_ce"}, {"loss.name": "softmax_ce"}])
    def test_they_do_not_leak_into_another_loss(self, other: dict[str, str], saved: Any) -> None:
        config = load_config({"method": "fbs_aegl", "loss.mu": "0.5", "loss.gamma": "0.1"})
        changed = load_config({"cfg": saved(config), **other})
        assert changed.loss.name == "softmax_ce" and changed.loss.options() == {}

    def test_they_stay_for_their_own(self, saved: Any) -> None:
        config = load_config({"loss.mu": "0.5"})
        assert load_config({"cfg": saved(config), "lr": "0.1"}).loss.options() == {"mu": 0.5}

    def test_a_file_writes_them_for_the_loss_of_its_method(self, tmp_path: Path) -> None:
        file = write(tmp_path / "my.yaml", {"method": "fbs_aegl", "loss": {"mu": 0.4}})
        assert load_config({"cfg": file}).loss.options() == {"mu": 0.4}
        assert load_config({"cfg": file, "method": "sigmoid_bce"}).loss.options() == {}

    def test_one_typed_for_the_wrong_loss_is_an_error(self) -> None:
        with pytest.raises(ConfigError, match=r"loss.mu: unknown option of softmax_ce.*\[arguments\]"):
            load_config({"method": "softmax_ce", "loss.mu": "0.5"})

    def test_one_typed_is_never_left_out_in_silence(self, tmp_path: Path) -> None:
        file = write(tmp_path / "my.yaml", {"loss": "softmax_ce"})
        with pytest.raises(ConfigError, match=r"loss.mu: unknown option of softmax_ce"):
            load_config({"cfg": file, "method": "fbs_aegl", "loss.mu": "0.5"})

    def test_complete_parts_writes_every_one_out(self) -> None:
        options = complete_parts(load_config({"loss.mu": "0.4"})).loss.options()
        assert options["mu"] == 0.4 and options["gamma"] == 0.7 and "activation" in options


class TestDataYaml:
    """A user's data YAML may bring configuration of its own."""

    def test_its_config_block_is_the_weakest_layer(self, tmp_path: Path) -> None:
        content = {"train": "t.json", "config": {"max_det": 50, "rfs_threshold": 0.01, "rpn": {"nms_iou": 0.6}}}
        file = write(tmp_path / "my.yaml", content)
        resolved = resolve({"data": file, "max_det": "60"})
        assert (resolved.config.max_det, resolved.config.rfs_threshold) == (60, 0.01)
        assert resolved.config.rpn.nms_iou == 0.6 and resolved.origins["rpn.nms_iou"] == file

    def test_its_bands_are_configuration_and_each_key_can_be_changed(self, tmp_path: Path) -> None:
        content = {"train": "t.json", "bands": {"names": ["few", "many"], "edges": [9], "low": 1, "by": "instances"}}
        file = write(tmp_path / "my.yaml", content)
        assert load_config({"data": file}).bands.names == ["few", "many"]
        bands = load_config({"data": file, "bands.edges": "4"}).bands
        assert (bands.names, bands.edges, bands.low, bands.by) == (["few", "many"], [4], 1, "instances")

    def test_the_bands_of_coco_lt_are_its_own(self) -> None:
        bands = load_config({"data": "coco_lt", "bands.low": "1"}).bands
        assert (bands.names, bands.edges) == (["1", "2", "3", "4"], [19, 399, 7999])
        assert (bands.by, bands.source, bands.low) == ("instances", "counts", 1)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"config": {"modle": 1}}, r"modle: unknown key \(did you mean model\?\) \[.*my.yaml\]"),
            ({"config": {"model": "r18"}}, r"model=r18: a data file cannot choose it \[.*my.yaml\]"),
            ({"config": [1]}, r"data=.*my.yaml: its `config` block must hold `key: value` lines, not \[1\]"),
            ({"bands": [1]}, r"bands=\[1\]: is a group of keys"),
            ({"bands": {"edges": "x"}}, r"bands.edges=\[x\]: must be a list of whole numbers \[.*my.yaml\]"),
            ({"bands": {"edges": [1]}}, r"bands.names=.*one edge fewer than names is needed"),
            ({"bands": {"low": 1}, "config": {"bands": {"low": 2}}}, r"`bands` stands twice"),
        ],
    )
    def test_mistakes_in_it_are_named(self, content: dict[str, Any], message: str, tmp_path: Path) -> None:
        file = write(tmp_path / "my.yaml", {"train": "t.json", **content})
        with pytest.raises(ConfigError, match=message):
            load_config({"data": file})
