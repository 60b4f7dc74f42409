"""From what the user gave to a :class:`Config`: layers, types, and all mistakes in one message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from aegl.config import shipped
from aegl.config.checks import cross_checks
from aegl.config.fields import keys, part_sections
from aegl.config.layers import (
    LENGTHS,
    Layer,
    Problems,
    file_layer,
    make_layer,
    overlay,
    shipped_layer,
)
from aegl.config.schema import Config
from aegl.config.sections import PartSection
from aegl.config.values import shown
from aegl.errors import ConfigError

ARGUMENTS = "arguments"
"""Origin of the overrides, in messages."""
DEFAULTS = "defaults"


@dataclass(frozen=True)
class Resolved:
    """A configuration and where each value comes from.

    Args:
        config: the configuration.
        origins: by dotted key: ``defaults``, a file, or ``arguments``.
    """

    config: Config
    origins: Mapping[str, str]


def load_config(overrides: Mapping[str, Any], *, base: Mapping[str, Any] | None = None) -> Config:
    """Resolve a configuration; see :func:`resolve`."""
    return resolve(overrides, base=base).config


def resolve(overrides: Mapping[str, Any], *, base: Mapping[str, Any] | None = None) -> Resolved:
    """Resolve a configuration. Layers, weakest first: defaults, data, model, schedule, method, recipe, file, overrides.

    A file (or ``base``) that gives every key stands alone: it is the run, whatever the shipped files have become since.
    Where something stronger names another data set, model, method, schedule or recipe than a file does, only the file's
    differences from what its own names give are kept, so that nothing of the replaced one stays behind.

    Args:
        overrides: dotted (or nested) keys to values; texts are read as YAML (``"0.5"``, ``"true"``, ``"[1, 2]"``,
            ``"1,2"``). The key ``cfg`` names a YAML file; ``loss=<name>`` is short for ``loss.name=<name>``.
        base: a configuration below the file, e.g. the one a model was trained with.

    Raises:
        ConfigError: naming every unknown key, unusable value, unknown name and contradiction, one per line, each with
            its value, what is allowed, and where it came from.
    """
    problems = Problems()
    given = {key: value for key, value in overrides.items() if key != "cfg"}
    path = overrides.get("cfg")
    files = [make_layer("the weights' configuration", base, problems)] if base is not None else []
    files += [file_layer(str(path), problems)] if path is not None else []
    layers = _stack(files, make_layer(ARGUMENTS, given, problems), problems)
    merged = overlay(layers).values
    origins = {key: layer.origin for layer in layers for key in layer.values if key in merged}
    config = _validate(merged, origins, problems)
    if problems.lines:
        raise ConfigError("\n".join(problems.lines))
    return Resolved(config, {key: origins.get(key, DEFAULTS) for key in flatten(config)})


def complete_parts(config: Config) -> Config:
    """The same configuration with every option of its method's parts written out, as a record of a run should be."""
    from aegl.longtail.parts import validate_choice

    sections = {name: getattr(config, name) for name in part_sections()}
    checked = {name: validate_choice(name, section) for name, section in sections.items()}
    update = {name: type(section)(name=section.name, **checked[name]) for name, section in sections.items()}
    return config.model_copy(update=update)


def flatten(config: Config) -> dict[str, Any]:
    """Every value by its dotted key, the given options of the parts among them."""
    flat: dict[str, Any] = {}
    for name, value in config.model_dump().items():
        flat.update({f"{name}.{part}": v for part, v in value.items()} if isinstance(value, dict) else {name: value})
    return flat


def _stack(files: list[Layer], arguments: Layer, problems: Problems) -> list[Layer]:
    """All layers, weakest first."""
    strong = [arguments]
    for file in reversed(files):
        replaced = _replaced(file, _names(strong))
        if file.complete and not replaced:
            return [file, *strong]
        strong.insert(0, _own_differences(file, replaced) if replaced else file)
    return [*_shipped_layers(_names(strong), problems), *strong]


def _names(layers: list[Layer]) -> dict[str, str]:
    """What the layers choose among the shipped files, by kind."""
    values = overlay(layers).values
    return {kind: values[kind] for kind in shipped.KINDS if isinstance(values.get(kind), str)}


def _replaced(file: Layer, stronger: Mapping[str, str]) -> set[str]:
    """The kinds of which the file names one and something stronger another."""
    return {kind for kind, name in stronger.items() if kind in file.values and file.values[kind] != name}


def _shipped_layers(names: Mapping[str, str], problems: Problems) -> list[Layer]:
    """The layers of the named files; a recipe names others, a model its schedule, unless something stronger does."""
    recipe = shipped_layer("recipe", names["recipe"], problems) if "recipe" in names else None
    chosen = {kind: keys()[kind].default for kind in shipped.KINDS[:-1]}
    named_by_recipe = _names([recipe]) if recipe else {}
    found = {}
    for kind in ("data", "model", "method"):
        name = {**chosen, **named_by_recipe, **names}[kind]
        found[kind] = shipped_layer(kind, name, problems) if name is not None else None
    named_by_model = _names([found["model"]]) if found["model"] else {}
    schedule = {**chosen, **named_by_model, **named_by_recipe, **names}["schedule"]
    found["schedule"] = shipped_layer("schedule", schedule, problems)
    # What a method's authors set of the schedule, such as clipping, belongs to the method.
    return [layer for kind in shipped.KINDS[:-1] if (layer := found[kind]) is not None] + ([recipe] if recipe else [])


def _own_differences(file: Layer, replaced: set[str]) -> Layer:
    """The file without the replaced names and without what only repeats the layers it names."""
    below = _shipped_layers(_names([file]), Problems())
    try:
        own = flatten(Config.model_validate(nest(overlay(below).values)))
        full = flatten(Config.model_validate(nest(overlay([*below, file]).values)))
    except ValidationError:
        return file  # its values are wrong in themselves, which is reported when the whole is checked
    kept = {key: v for key, v in file.values.items() if key not in replaced and full.get(key) != own.get(key)}
    return Layer(file.origin, kept, {section: full[f"{section}.name"] for section in part_sections()})


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys to nested dictionaries."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        section, dot, part = key.partition(".")
        if dot:
            nested.setdefault(section, {})[part] = value
        else:
            nested[key] = value
    return nested


def _validate(merged: Mapping[str, Any], origins: Mapping[str, str], problems: Problems) -> Config:
    """The configuration; where values are wrong, one without them, so that the rest can still be checked."""
    values = dict(merged)
    if all(merged.get(key) is not None for key in LENGTHS):
        both = ", ".join(f"{key}={merged[key]}" for key in LENGTHS)
        problems.add(f"{both}: two lengths of training; give one of them [{origins[LENGTHS[0]]}]")
    try:
        config = Config.model_validate(nest(values))
    except ValidationError as error:
        for name in dict.fromkeys(_key_of(problem["loc"]) for problem in error.errors()):
            value = values.pop(name)
            problems.add(f"{name}={shown(value)}: must be {keys()[name].allowed} [{origins[name]}]", name)
        config = Config.model_validate(nest(values))
    for section in part_sections():
        config = _with_checked_part(config, section, origins, problems)
    for names, line in cross_checks(config):
        if not problems.keys.intersection(names):
            sources = dict.fromkeys(origins[name] for name in names if name in origins)
            problems.add(f"{line} [{', '.join(sources) or DEFAULTS}]")
    return config


def _key_of(location: tuple[int | str, ...]) -> str:
    """The dotted key of a pydantic error, whose location may go on into a list."""
    dotted = ".".join(str(part) for part in location[:2])
    return dotted if dotted in keys() else str(location[0])


def _with_checked_part(config: Config, section: str, origins: Mapping[str, str], problems: Problems) -> Config:
    """Check a part's name and options against the part itself, which takes torch, and take over its types.

    A part chosen by a shipped file with no options given is known to be right, and costs nothing.
    """
    chosen: PartSection = getattr(config, section)
    options = chosen.options()
    if not options and origins.get(f"{section}.name", DEFAULTS).startswith(("cfg/", DEFAULTS)):
        return config
    from aegl.longtail.parts import validate_choice

    try:
        checked = validate_choice(section, chosen)
    except ConfigError as error:
        for line in str(error).splitlines():
            name = line.partition(":")[0].partition("=")[0]
            problems.add(f"{line} [{origins[name]}]" if name in origins else line, name)
        return config
    typed = {name: checked[name] for name in options}
    return config.model_copy(update={section: type(chosen)(name=chosen.name, **typed)})
