"""`aegl cfg`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run("cfg", words, _resolve, lambda result: str(result["text"]).rstrip())


def _resolve(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl.config import load_config, to_yaml
    from aegl.config.render import render_defaults

    config = load_config(overrides)
    return {"config": config.model_dump(mode="json"), "text": to_yaml(config) if overrides else render_defaults()}
