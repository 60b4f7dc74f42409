"""`aegl <verb> --help`, made from the schema."""

from __future__ import annotations

from collections.abc import Iterator

from aegl.config.fields import keys
from aegl.config.verbs import OF_VERB
from aegl_cli.keyvalue import FLAGS
from aegl_cli.render import listing

USAGE = {
    "tune": "aegl tune data=<data> space.<key>=<range> [space.<key>=<range> ...] [key=value ...]\n"
    "A range is low..high, low..high:log, a|b|c, or auto (all that the key allows); docs/tuning.md has more.",
    "compare": "aegl compare methods=a,b+sampler=rfs | recipes=a,b | entries=file.yaml | runs=a,b [key=value ...]",
    "data": "aegl data check|stats|advise|download|convert|split|coco_lt|segments data=<name, YAML, folder or JSON>",
    "report": "aegl report runs/train [runs/train2 ...]",
    "plot": "aegl plot runs/train [runs/train2 ...] | data=a,b [figures=...] [key=value ...]",
    "methods": "aegl methods [name]",
    "cfg": "aegl cfg [key=value ...]",
}


def verb_help(verb: str, summary: str) -> str:
    """The help text of a verb."""
    lines = [f"Usage: {USAGE.get(verb, f'aegl {verb} key=value ... (or --key value)')}", "", summary]
    entries = [entry for key in OF_VERB[verb] for entry in _entries(key)]
    if entries:
        lines += ["", "Keys that matter here (`aegl cfg` shows all):"]
        lines.append(listing([[f"  {name}", text] for name, text in entries]))
    return "\n".join([*lines, "", listing([[f"  {flag}", text] for flag, text in FLAGS.items()])])


def _entries(name: str) -> Iterator[tuple[str, str]]:
    """A key, or all keys of a section."""
    for key in keys().values():
        if key.name == name or key.name.startswith(f"{name}."):
            yield key.name, f"{key.help} ({key.allowed}) default {key.default}"
    if name == "loss":
        yield "loss.<option>", "Hyper-parameters of the loss; `aegl methods <name>` lists them."
