"""A configuration as YAML."""

from __future__ import annotations

from typing import Any

import yaml

from aegl.config.schema import Config


class _Dumper(yaml.SafeDumper):
    """Sections in block style, lists on one line."""


_Dumper.add_representer(list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, True))


def to_yaml(config: Config) -> str:
    """The text of ``args.yaml``: every key; ``load_config({"cfg": path})`` gives the same configuration back."""
    return yaml.dump(config.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def inline(value: Any) -> str:
    """A value on one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
