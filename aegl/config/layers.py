"""The layers of a configuration: flat tables of values with their origin, and how they are laid on each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aegl.config import shipped
from aegl.config.fields import keys, part_sections, sections
from aegl.config.hints import did_you_mean
from aegl.config.values import convert, parse_free, read_mapping, shown
from aegl.errors import ConfigError

LENGTHS = ("epochs", "iterations")
"""Two ways to say the same: the stronger layer's silences the other."""
_MAY_NAME = {"data": (), "model": ("schedule",), "method": (), "schedule": (), "recipe": shipped.KINDS[:-1]}


@dataclass(frozen=True)
class Layer:
    """Values of one origin.

    Args:
        origin: where they come from, for messages.
        values: values by dotted key, in the type of their key.
        parts: by section, the part that options among the values were written for, where the values do not say.
    """

    origin: str
    values: Mapping[str, Any]
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every key is given, as in an ``args.yaml``."""
        return keys().keys() <= self.values.keys()


@dataclass
class Problems:
    """Everything found wrong so far, one line each, and the keys concerned."""

    lines: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def add(self, line: str, key: str | None = None) -> None:
        """Note a problem once."""
        if line not in self.lines:
            self.lines.append(line)
        if key is not None:
            self.keys.add(key)


def make_layer(origin: str, content: Mapping[str, Any], problems: Problems) -> Layer:
    """Flatten nested or dotted content and convert its values; what cannot be used is noted and left out."""
    values: dict[str, Any] = {}
    for name, raw in _flatten(content, "", origin, problems):
        key = keys().get(name)
        try:
            values[name] = parse_free(raw) if key is None else convert(key, raw)
        except ValueError:
            assert key is not None
            problems.add(f"{name}={shown(raw)}: must be {key.allowed} [{origin}]", name)
    return Layer(origin, values)


def shipped_layer(kind: str, name: str, problems: Problems) -> Layer | None:
    """The layer of a shipped file; None, with the problem noted, for an unknown name."""
    try:
        if kind == "data":
            return _data_layer(name, problems)
        content = shipped.settings(kind, name)
    except ConfigError as error:
        problems.add(str(error), kind)
        return None
    return _checked(kind, make_layer(shipped.origin(kind, name), content, problems), problems)


def file_layer(path: str, problems: Problems) -> Layer:
    """The layer of a user's file; an empty one, with the problem noted, if it cannot be read."""
    try:
        return make_layer(path, read_mapping(Path(path), f"cfg={path}"), problems)
    except ConfigError as error:
        problems.add(str(error))
        return Layer(path, {})


def overlay(layers: list[Layer]) -> Layer:
    """Lay the layers on each other, weakest first; the stronger value of each key wins.

    Options of a part hold for the part they were written for (the one the layer itself names, that of the method it
    names, or else the one in force below it); where another is chosen in the end, they are left out. The last layer's
    always stay: they are what the user typed.
    """
    values: dict[str, Any] = {}
    written_for: dict[str, str] = {}
    for layer in layers:
        values.update(layer.values)
        given = [key for key in LENGTHS if layer.values.get(key) is not None]
        if len(given) == 1:
            values[LENGTHS[1 - LENGTHS.index(given[0])]] = None
        for option in filter(is_part_option, layer.values):
            section = option.partition(".")[0]
            written_for[option] = _part_of(layer, section) or _part_in_force(values, section)
    typed = layers[-1].values if layers else {}
    dropped = {
        option
        for option, part in written_for.items()
        if part != _part_in_force(values, option.partition(".")[0]) and option not in typed
    }
    return Layer("all layers", {key: value for key, value in values.items() if key not in dropped})


def is_part_option(name: str) -> bool:
    """Whether a dotted name may be an option of a part of a method, e.g. ``loss.mu``."""
    section, dot, option = name.partition(".")
    return bool(dot) and section in part_sections() and "." not in option and option != "name"


def _data_layer(name: str, problems: Problems) -> Layer | None:
    if name in shipped.available("data"):
        return _checked(
            "data", make_layer(shipped.origin("data", name), shipped.settings("data", name), problems), problems
        )
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        label = f"data={name}"
        block = shipped.data_settings(read_mapping(path, label), label)
        return _checked("data", make_layer(name, block, problems), problems)
    if path.suffix == "" and len(path.parts) == 1 and not path.exists():
        names = shipped.available("data")
        raise ConfigError(
            f"data={name}: unknown data set{did_you_mean(name, names)}, and no file or folder of that name is here; "
            f"available: {', '.join(names)}"
        )
    return Layer(name, {})


def _checked(kind: str, layer: Layer, problems: Problems) -> Layer:
    """Without the names that this kind of file must not choose."""
    for name in set(shipped.KINDS) - set(_MAY_NAME[kind]):
        if name in layer.values:
            problems.add(f"{name}={shown(layer.values[name])}: a {kind} file cannot choose it [{layer.origin}]")
    return layer


def _part_in_force(values: Mapping[str, Any], section: str) -> str:
    key = f"{section}.name"
    return str(values.get(key, keys()[key].default))


def _part_of(layer: Layer, section: str) -> str | None:
    key = f"{section}.name"
    if section in layer.parts or key in layer.values:
        return layer.parts.get(section) or str(layer.values[key])
    method = layer.values.get("method")
    if not isinstance(method, str) or not (shipped.is_file("method", method) or method in shipped.available("method")):
        return None
    return make_layer("", shipped.settings("method", method), Problems()).values.get(key)


def _flatten(content: Mapping[str, Any], prefix: str, origin: str, problems: Problems) -> Iterator[tuple[str, Any]]:
    for part, value in content.items():
        name = f"{prefix}{part}"
        if name in sections():
            if isinstance(value, Mapping):
                yield from _flatten(value, f"{name}.", origin, problems)
            elif isinstance(value, str) and f"{name}.name" in keys():
                yield f"{name}.name", value
            else:
                inner = [key for key in keys() if key.startswith(f"{name}.")]
                problems.add(
                    f"{name}={shown(value)}: is a group of keys; give them one by one, "
                    f"{', '.join(inner[:3])}{' ...' if len(inner) > 3 else ''} [{origin}]",
                    name,
                )
        elif name in keys() or is_part_option(name):
            yield name, value
        elif name == "cfg":
            problems.add(f"cfg={shown(value)}: can be given as an argument only [{origin}]", name)
        else:
            problems.add(f"{name}: unknown key{did_you_mean(name, _known(name))} [{origin}]", name)


def _known(name: str) -> list[str]:
    """All keys, those of the parts among them: an unknown key may be a part's option without its section."""
    from aegl.longtail.parts import REGISTRIES

    options = {
        f"{kind}.{option.name}": None
        for kind, registry in REGISTRIES.items()
        for part in registry
        for option in registry.describe(part)
    }
    return ["cfg", *keys(), *options]
