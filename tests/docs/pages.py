"""The pages, their blocks, and what of these is to be run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").rglob("*.md"))
SHELL = ("indented", "", "bash", "sh")
"""Languages of blocks that hold commands. Output, trees and signatures stand in blocks of the language ``text``."""
_PROGRAMS = ("aegl", "torchrun")
"""First words that make a list in a YAML block a command: that of a container."""


@dataclass(frozen=True)
class Block:
    """A fenced block, or an indented one (language ``indented``), and the number of its first line."""

    page: str
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Step:
    """Something to run: a ``command``, a ``script``, a ``python`` program, or an ``image`` to build."""

    place: str
    kind: str
    text: str


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """All blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    fenced = r"^```(?P<language>\w*)\n(?P<fenced>.*?)^```"
    indented = r"(?P<indented>(?:^ {4}[^\n]*\n(?:\n(?= {4}))?)+)"
    for found in re.finditer(f"{fenced}|{indented}", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, found.start()) + 1
        if found["indented"] is None:
            yield Block(name_of(page), line, found["language"], found["fenced"])
        else:
            yield Block(name_of(page), line, "indented", re.sub("^ {4}", "", found["indented"], flags=re.MULTILINE))


def file_of(block: Block) -> str | None:
    """The file that a block is the content of: its first line is a comment that says so."""
    found = re.match(r"# ([\w-]+\.\w+)\n", block.text)
    return found[1] if found and block.language in ("python", "yaml", "json") else None


def steps(block: Block) -> Iterator[Step]:
    """What a block asks the reader to run.

    Raises:
        ValueError: for a language of which nobody has said whether it can be run.
    """
    place = f"{block.page}:{block.line}"
    if block.language == "python":
        yield Step(place, "python", block.text)
    elif block.language in SHELL and block.text.startswith("#!"):
        yield Step(place, "script", block.text)
    elif block.language in SHELL:
        for command in commands(block.text):
            yield Step(place, "command", command)
    elif block.language == "dockerfile":
        yield Step(place, "image", block.text)
        for words in re.findall(r"^CMD (\[.*\])", block.text, re.MULTILINE):
            yield Step(place, "command", shlex.join(yaml.safe_load(words)))
    elif block.language in ("yaml", "json"):
        for document in yaml.safe_load_all(block.text):
            for words in _commands_within(document):
                yield Step(place, "command", shlex.join(words))
    elif block.language != "text":
        raise ValueError(f"{place}: a block of the language {block.language}: say in tests/docs/pages.py what it is")


def commands(text: str) -> list[str]:
    """The commands of a shell block, continued lines joined, without comments and the prompt."""
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    found = [re.sub(r"(^|\s+)#\s.*$", "", line).strip().removeprefix("$ ") for line in lines]
    return [command for command in found if command]


def _commands_within(value: Any) -> Iterator[list[str]]:
    if isinstance(value, list) and value and value[0] in _PROGRAMS:
        yield [str(word) for word in value]
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _commands_within(part)
