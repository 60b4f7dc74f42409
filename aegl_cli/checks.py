"""`aegl checks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.render import nested
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run("checks", words, _checks, nested)


def _checks(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl.environment import describe_environment
    from aegl.errors import ConfigError

    if overrides:
        raise ConfigError(f"checks takes no arguments, but was given {', '.join(overrides)}")
    return describe_environment()
