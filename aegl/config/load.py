"""From what the user typed to a :class:`Config`: layers, types, and all mistakes in one message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from aegl.config.hints import did_you_mean
from aegl.config.layers import KINDS, Layer, data_layer, merge, read_file, shipped_layer
from aegl.config.schema import Config
from aegl.config.sections import LossSection
from aegl.errors import ConfigError

NAMED_SECTIONS = ("loss",)
"""Sections that may be given by their name alone: `loss=softmax_ce`."""


def load_config(overrides: Mapping[str, Any], *, base: Mapping[str, Any] | None = None) -> Config:
    """Resolve a configuration.

    Args:
        overrides: dotted keys to values; texts are read as YAML (``"0.5"``, ``"true"``, ``"[1, 2]"``, ``"1,2"``). The
            key ``cfg`` names a YAML file.
        base: a complete configuration that takes the place of the shipped layers (that of a trained model).

    Raises:
        ConfigError: naming every unknown key, unusable value and unknown name at once.
    """
    problems: list[str] = []
    given, file = _parse(overrides, problems)
    layers = _layers(given, file, base, problems)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        merge(merged, layer.values)
        origins.update(dict.fromkeys(_dotted(layer.values), layer.origin))
    config = _validate(merged, origins, problems)
    if config is not None:
        problems += list(_cross_checks(config))
        problems += _loss_problems(config)
    if problems or config is None:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return config


def to_yaml(config: Config) -> str:
    """The text of ``args.yaml``: complete, and read back by ``cfg=``."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def known_keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Every key of the schema, dotted."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from known_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def _parse(overrides: Mapping[str, Any], problems: list[str]) -> tuple[Layer, Layer | None]:
    values: dict[str, Any] = {}
    file: Layer | None = None
    for key, raw in overrides.items():
        value = _value(raw)
        if key == "cfg":
            if value is not None:
                file = _user_file(Path(str(value)), problems)
            continue
        if key in NAMED_SECTIONS and isinstance(value, str):
            key = f"{key}.name"
        _set(values, key, value, problems)
    return Layer("command line", values), file


def _value(raw: Any) -> Any:
    if not isinstance(raw, str):
        return raw
    text = raw.strip()
    if "," in text and not text.startswith(("[", "{", "'", '"')) and "{" not in text and "*" not in text:
        text = f"[{text}]"
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return raw
    # Only plain values are meant on a command line: `a: b` and dates are texts.
    if isinstance(value, bool | int | float | list | dict) or value is None:
        return _float_like(raw) if value is None and text not in {"", "null", "None", "~"} else value
    return _float_like(value if isinstance(value, str) else raw)


def _float_like(value: str) -> str | float:
    """YAML 1.1 takes `1e-4` for a text."""
    try:
        return float(value) if "e" in value.lower() and value[0] in "+-.0123456789" else value
    except ValueError:
        return value


def _user_file(path: Path, problems: list[str]) -> Layer | None:
    try:
        if not path.is_file():
            raise ConfigError(f"cfg={path}: no such file")
        return Layer(str(path), read_file(path))
    except ConfigError as error:
        problems.append(str(error))
        return None


def _set(values: dict[str, Any], key: str, value: Any, problems: list[str]) -> None:
    *parents, last = key.split(".")
    at = values
    for parent in parents:
        inner = at.setdefault(parent, {})
        if not isinstance(inner, dict):
            problems.append(f"{key}: {parent} is given as {inner} as well; give one of the two")
            return
        at = inner
    if isinstance(value, Mapping) and isinstance(at.get(last), dict):
        merge(at[last], value)
    else:
        at[last] = value


def _layers(given: Layer, file: Layer | None, base: Mapping[str, Any] | None, problems: list[str]) -> list[Layer]:
    """Weakest first. A layer may name others (a recipe its method), so names are looked up from strong to weak."""
    strong = [layer for layer in (file, given) if layer is not None]
    if base is not None:
        return [Layer("the weights' own configuration", base), *strong]
    if file is not None and set(known_keys()) <= set(_dotted(file.values)) | {"loss.name"}:
        return strong  # a complete args.yaml is the run, whatever the shipped files have become since
    found: list[Layer] = []
    for kind in reversed(KINDS):
        name = _named(kind, [*found, *strong])
        if not isinstance(name, str):
            continue  # none given, or of a wrong type, which the schema reports
        try:
            found.insert(0, data_layer(name) if kind == "data" else shipped_layer(kind, name))
        except ConfigError as error:
            problems.append(str(error))
    return [*_with_model_schedule(found, strong, problems), *strong]


def _with_model_schedule(found: list[Layer], strong: list[Layer], problems: list[str]) -> list[Layer]:
    """A model may name its own schedule, which is stronger than the model and weaker than all that is named."""
    if any(layer.values.get("schedule") for layer in strong) or any(layer.origin.startswith("cfg/schedule/") for layer in found):
        return found
    name = next((layer.values["schedule"] for layer in found if layer.values.get("schedule")), None)
    if name is None:
        return found
    try:
        schedule = shipped_layer("schedule", str(name))
    except ConfigError as error:
        problems.append(str(error))
        return found
    at = next((i for i, layer in enumerate(found) if layer.origin.startswith("cfg/recipe/")), len(found))
    return [*found[:at], schedule, *found[at:]]


def _named(kind: str, layers: list[Layer]) -> Any:
    for layer in reversed(layers):
        if kind in layer.values:
            return layer.values[kind]
    return Config.model_fields[kind].default


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _validate(merged: dict[str, Any], origins: Mapping[str, str], problems: list[str]) -> Config | None:
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        known = list(known_keys())
        for problem in error.errors():
            path = [str(part) for part in problem["loc"] if not isinstance(part, int)]
            key = ".".join(path)
            origin = next((origins[k] for k in (key, *(k for k in origins if k.startswith(f"{key}."))) if k in origins), "")
            where = f" [{origin}]" if origin else ""
            if problem["type"] == "extra_forbidden":
                problems.append(f"{key}: unknown key{did_you_mean(key, known)}{where}")
            else:
                problems.append(f"{key}={problem['input']}: {_reason(problem)}{where}")
        return None


def _reason(problem: Any) -> str:
    message: str = problem["msg"]
    for prefix in ("Input should be ", "Value error, "):
        if message.startswith(prefix):
            return ("must be " if prefix.startswith("Input") else "") + message.removeprefix(prefix)
    return message


def _cross_checks(config: Config) -> Iterator[str]:
    if config.batch % config.accumulate:
        yield f"accumulate={config.accumulate}: must divide batch={config.batch}"
    if len(config.bands.edges) != len(config.bands.names) - 1:
        yield (
            f"bands.edges={config.bands.edges}: must have one value fewer than bands.names={config.bands.names}: "
            "the largest count of each band but the last"
        )
    if sorted(set(config.bands.edges)) != config.bands.edges:
        yield f"bands.edges={config.bands.edges}: must rise"
    if config.imgsz > config.max_size:
        yield f"imgsz={config.imgsz}: the short side must not exceed max_size={config.max_size}"
    if config.rpn.negative_iou > config.rpn.positive_iou:
        yield f"rpn.negative_iou={config.rpn.negative_iou}: must not exceed rpn.positive_iou={config.rpn.positive_iou}"
    if any(not 0 < share <= 1 for share in config.lr_milestones):
        yield f"lr_milestones={config.lr_milestones}: shares of training, each above 0 and at most 1"
    if any(size < 32 for size in config.train_imgsz):
        yield f"train_imgsz={config.train_imgsz}: short sides must be 32 or more"


def _loss_problems(config: Config) -> list[str]:
    """The options of the chosen loss; only where some are given, as it takes torch to know them."""
    if not config.loss.options() and config.loss.name == LossSection().name:
        return []
    from aegl.longtail.options import validate_options

    try:
        validate_options(config.loss.name, config.loss.options())
    except ConfigError as error:
        return str(error).splitlines()
    return []
