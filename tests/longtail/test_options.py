import inspect
from pathlib import Path
from typing import get_args

import pytest
import yaml

import aegl.cfg
from aegl.errors import ConfigError
from aegl.longtail import LOSSES
from aegl.longtail.classifiers import ClassifierKind
from aegl.longtail.losses.fbs_aegl import FbsAegl
from aegl.longtail.options import option_model

METHODS = sorted((Path(aegl.cfg.__file__).parent / "method").glob("*.yaml"))


@pytest.mark.parametrize("name", LOSSES)
def test_schema_is_the_signature(name):
    parameters = inspect.signature(LOSSES[name].__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert LOSSES.validate(name, {}) == defaults
    assert [option.name for option in LOSSES.describe(name)] == list(defaults)
    assert all(option.help and option.allowed for option in LOSSES.describe(name))


def test_given_options_reach_the_loss(stats):
    loss = LOSSES.build("fbs_aegl", stats, mu=0.1, gate_start="0.5", prior_prob=None)
    assert isinstance(loss, FbsAegl)
    assert (loss.mu, loss.gate_start, loss.prior_prob) == (0.1, 0.5, None)


def test_all_problems_are_named_at_once():
    options = {"gama": 0.7, "gamma": 1.0, "activation": "softmax", "prior_prob": 0, "objectness": "perhaps", "mu": 0.5}
    with pytest.raises(ConfigError) as error:
        LOSSES.validate("fbs_aegl", options)
    lines = str(error.value).splitlines()
    assert len(lines) == 5
    assert "loss.gamma=1.0: must be a number >= 0 and < 1" in lines
    assert "loss.activation=softmax: must be one of sigmoid, gumbel" in lines
    assert "loss.prior_prob=0: must be a number > 0 and < 1, or null" in lines
    assert "loss.objectness=perhaps: must be true or false" in lines
    unknown = next(line for line in lines if line.startswith("loss.gama:"))
    assert "unknown option of fbs_aegl, did you mean gamma" in unknown


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("gamma", -0.1),
        ("gamma", float("nan")),
        ("mu", -0.1),
        ("loss_weight", -1),
        ("loss_weight", float("inf")),
        ("gate_start", 1.1),
        ("low_frequency_max", -1),
        ("low_frequency_max", 1.5),
        ("normalization", None),
    ],
)
def test_values_out_of_range_are_refused(stats, option, value):
    with pytest.raises(ConfigError, match=rf"^loss\.{option}="):
        LOSSES.build("fbs_aegl", stats, **{option: value})


def test_options_of_another_loss_are_refused():
    with pytest.raises(ConfigError, match=r"loss\.mu: unknown option of softmax_ce; known are loss_weight"):
        LOSSES.validate("softmax_ce", {"mu": 0.7})


def test_unknown_loss_names_the_near_one():
    with pytest.raises(ConfigError, match=r"loss\.name=fbs_agel: unknown, did you mean fbs_aegl\?"):
        LOSSES.part("fbs_agel")
    with pytest.raises(ConfigError, match=r"known are .*fbs_aegl, .*softmax_ce"):
        LOSSES.part("zzz")


def test_schema_is_frozen():
    options = option_model(FbsAegl)()
    with pytest.raises(ValueError, match="frozen"):
        options.mu = 0.1


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_method_files_name_a_loss_and_their_source(path):
    method = yaml.safe_load(path.read_text())
    name = method["loss"].pop("name")
    LOSSES.validate(name, method["loss"])
    assert method["box"]["classifier"] in get_args(ClassifierKind)
    assert method["sampler"] in ("random", "rfs", "class_balanced")
    assert {"paper", "year", "venue", "touches", "published"} <= set(method["reference"])
    for row in method["reference"]["published"]:
        figures = {key: value for key, value in row.items() if key.endswith("_ap") or key.startswith("ap_")}
        assert figures and all(0 < value < 100 for value in figures.values())


def test_every_loss_has_a_method_of_its_name():
    assert set(LOSSES) <= {path.stem for path in METHODS}
