"""What stands in README.md and docs/: commands are ones that aegl takes, code is code, links lead somewhere."""

from __future__ import annotations

import ast
import json
import re
import shlex

import pytest
import yaml

from aegl.config import shipped
from aegl.config.fields import keys, sections
from aegl.config.load import load_config
from aegl.config.reference import methods, reference
from aegl.errors import ConfigError
from aegl_cli.keyvalue import parse
from aegl_cli.main import VERBS

from .pages import PAGES, ROOT, blocks, steps

_POSITIONAL = {"data": "data", "methods": "name", "plot": "runs", "report": "runs", "compare": None}
_DATA_VERBS = ("check", "stats", "advise", "download", "convert", "split", "coco_lt", "segments")


def _commands() -> list[tuple[str, str]]:
    """Page and text of every aegl command, without its comment."""
    found = []
    for block in (block for page in PAGES for block in blocks(page)):
        for step in steps(block):
            start = re.match(
                r"(?:\w+=\S+ )*(?:aegl|(?:torchrun|python|\S+/python) .*?-(?:m|-module) aegl_cli) (.*)", step.text
            )
            if step.kind == "command" and start and not re.search(r"\.\.\.|[|<>]", start[1]):
                found.append((block.page, start[1]))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "command"), _commands())
def test_a_command_is_one_that_aegl_takes(page: str, command: str) -> None:
    verb, *words = shlex.split(command)
    assert verb in VERBS, f"{page}: {command}"
    if verb == "data":
        assert words.pop(0) in _DATA_VERBS, f"{page}: {command}"
    if "--help" in words:
        return
    given = parse(words, positional=_POSITIONAL.get(verb), many=verb in ("plot", "report"))
    if verb in ("methods", "models", "checks", "cfg"):
        return
    tuned = [key.removeprefix("space.") for key in given if key.startswith("space.")]
    named = [key for key in given if key != "cfg" and not key.startswith("space.")]
    for key in [*named, *tuned]:
        assert key in keys() or key.partition(".")[0] in sections(), f"{page}: {command}: no such key as {key}"
    values = {key: given[key] for key in named if key != "loss" or not given[key].endswith(".py")}
    if values.get("data") not in shipped.available("data"):
        values.pop("data", None)
    if values.get("method", "").endswith(".yaml"):  # the reader's own, with options of its own
        values = {key: value for key, value in values.items() if key != "method" and "." not in key}
    try:
        load_config(values)
    except ConfigError as error:
        pytest.fail(f"{page}: {command}: {error}")


def _with_language(*languages: str) -> list[tuple[str, str]]:
    return [
        (f"{block.page}:{block.line}", block.text)
        for page in PAGES
        for block in blocks(page)
        if block.language in languages
    ]


@pytest.mark.parametrize(("place", "block"), _with_language("python"), ids=lambda value: value[:40])
def test_python_is_python_and_imports_what_there_is(place: str, block: str) -> None:
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("aegl"):
            module = __import__(node.module, fromlist=["_"])
            assert all(hasattr(module, alias.name) for alias in node.names), f"{place}: {ast.unparse(node)}"


@pytest.mark.parametrize(("place", "block"), _with_language("yaml", "json"), ids=lambda value: value[:40])
def test_yaml_and_json_can_be_read(place: str, block: str) -> None:
    documents = list(yaml.safe_load_all(block.replace("...", "")))  # JSON is YAML
    assert documents and any(document is not None for document in documents), place


def _links() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not target.startswith(("http://", "https://", "#", "mailto:")):
                found.append((str(page.relative_to(ROOT)), target))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "target"), _links())
def test_links_lead_somewhere(page: str, target: str) -> None:
    assert ((ROOT / page).parent / target.partition("#")[0]).exists()


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                waiting.append((page.parent / target).resolve())
    assert {page for page in PAGES if page.name != "CONTRIBUTING.md"} <= reached


def test_the_reference_of_keys_is_up_to_date() -> None:
    page = (ROOT / "docs" / "reference" / "keys.md").read_text(encoding="utf-8")
    assert page == reference(), "run `python -m aegl.config.reference > docs/reference/keys.md`"


def test_the_table_of_methods_is_up_to_date() -> None:
    assert methods() in (ROOT / "README.md").read_text(encoding="utf-8"), (
        "run `python -m aegl.config.reference methods`"
    )


def test_the_site_has_every_page() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = set(re.findall(r"[\w/]+\.md", json.dumps(site["nav"])))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}


def test_the_json_of_predictions_is_as_shown() -> None:
    (block,) = [block for block in blocks(ROOT / "docs" / "serving.md") if block.language == "json"]
    shown = json.loads(block.text.replace("...", ""))
    assert set(shown["detections"][0]) == {"label", "category_id", "name", "band", "score", "box", "mask"}
