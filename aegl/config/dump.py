"""A configuration as YAML."""

from __future__ import annotations

from typing import Any

import yaml

from aegl.config.schema import Config


class _Dumper(yaml.SafeDumper):
    """Sections in block style, lists on one line."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # PyYAML takes these for line breaks, which it would fold; between double quotes it escapes them.
    style = '"' if set(value) & set("\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)


_Dumper.add_representer(list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, True))
_Dumper.add_representer(str, _text)


def to_yaml(config: Config) -> str:
    """The text of ``args.yaml``: every key; ``load_config({"cfg": path})`` gives the same configuration back."""
    return yaml.dump(config.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def inline(value: Any) -> str:
    """A value on one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
