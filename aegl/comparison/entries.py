"""What is compared: entries from `methods=`, `recipes=` and the file of `entries=`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aegl.config import Config
from aegl.config.entry import parse_entry
from aegl.config.values import read_yaml, shown
from aegl.errors import ConfigError

VERB_KEYS = ("methods", "recipes", "entries", "runs", "seeds")
"""Keys that say what is compared, and nothing about a run."""
_OF_THE_COMPARISON = (*VERB_KEYS, "seed", "project", "name", "exist_ok", "resume", "cfg")
_UNFIT_FOR_A_FOLDER = re.compile(r"^\.|[^A-Za-z0-9._+=-]")
_LONGEST_FOLDER = 150
_FIELDS = ("name", "method", "recipe", "keys")


@dataclass(frozen=True)
class Entry:
    """One line of a comparison.

    Args:
        name: as shown.
        keys: dotted keys to values, stronger than those that hold for all entries.
    """

    name: str
    keys: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Name of the folder that holds its runs."""
        return _UNFIT_FOR_A_FOLDER.sub("_", self.name)


def entries_of(request: Config, given: Mapping[str, Any]) -> list[Entry]:
    """The entries that a request names, in its order: methods, recipes, those of the file.

    Args:
        request: with ``methods``, ``recipes`` and ``entries``.
        given: keys that hold for all entries.

    Raises:
        ConfigError: if there is none, or one cannot be understood, chooses what the comparison chooses, or shares its
            name or folder with another.
    """
    found = [
        *(_parse(text, "method") for text in request.methods or ()),
        *(_parse(text, "recipe") for text in request.recipes or ()),
        *(_of_file(Path(request.entries)) if request.entries is not None else ()),
    ]
    if not found:
        raise ConfigError(
            "methods, recipes, entries, runs: none is given; say what to compare, e.g. methods=softmax_ce,fbs_aegl"
        )
    for kind, plural in (("method", request.methods), ("recipe", request.recipes)):
        if plural and kind in given:
            raise ConfigError(f"{kind}={shown(given[kind])}: {kind}s={','.join(plural)} names them; leave it out")
    _check_folders(found)
    return found


def _parse(text: str, kind: str) -> Entry:
    try:
        name, keys = parse_entry(text)
    except ValueError:
        raise ConfigError(
            f"{kind}s: `{shown(text)}` does not begin with the name of a {kind}; entries are divided by commas, and an "
            f"entry's own keys follow its name, e.g. {kind}s=a,a+sampler=rfs+lr=0.01"
        ) from None
    return _entry(text.strip(), {kind: name, **keys}, f"{kind}s")


def _of_file(path: Path) -> Iterator[Entry]:
    label = f"entries={path}"
    for number, item in enumerate(_list_in(path, label), start=1):
        where = f"{label}: entry {number}"
        if not isinstance(item, Mapping):
            raise ConfigError(f"{where} is `{shown(item)}`; it must hold {', '.join(_FIELDS)}")
        unknown = [str(field) for field in item if field not in _FIELDS]
        if unknown:
            raise ConfigError(f"{where}: {', '.join(unknown)}: unknown; known are {', '.join(_FIELDS)}")
        keys = item.get("keys") or {}
        if not isinstance(keys, Mapping):
            raise ConfigError(f"{where}: its `keys` must hold `key: value` lines, not `{shown(keys)}`")
        chosen = {kind: item[kind] for kind in ("recipe", "method") if item.get(kind) is not None}
        name = item.get("name") or " ".join(map(str, chosen.values()))
        if not name:
            raise ConfigError(f"{where}: has neither a name nor a method or recipe")
        yield _entry(str(name), {**chosen, **keys}, where)


def _list_in(path: Path, label: str) -> list[Any]:
    content = read_yaml(path, label)
    if not isinstance(content, list):
        raise ConfigError(f"{label}: must hold a list of entries, each with {', '.join(_FIELDS)}")
    return content


def _entry(name: str, keys: Mapping[str, Any], where: str) -> Entry:
    refused = [key for key in keys if key in _OF_THE_COMPARISON]
    if refused:
        raise ConfigError(f"{where}: {name}: {refused[0]} cannot be an entry's own; give it for the whole comparison")
    return Entry(name, dict(keys))


def _check_folders(entries: Iterable[Entry]) -> None:
    taken: dict[str, str] = {}
    for entry in entries:
        if len(entry.folder) > _LONGEST_FOLDER:
            raise ConfigError(f"{entry.name}: too long for the name of a folder; name it in a file (entries=file.yaml)")
        if entry.folder in taken:
            other = "stands there twice" if taken[entry.folder] == entry.name else f"is too like {taken[entry.folder]}"
            raise ConfigError(f"{entry.name}: {other}; give every entry a name of its own (entries=file.yaml)")
        taken[entry.folder] = entry.name
