"""`aegl models`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aegl.progress import Progress
from aegl_cli.render import listing
from aegl_cli.runner import run


def main(words: Sequence[str]) -> int:
    """Run the verb."""
    return run("models", words, _models, _render)


def _models(overrides: dict[str, str], progress: Progress) -> dict[str, Any]:
    from aegl.config import load_config
    from aegl.config.shipped import available
    from aegl.errors import ConfigError

    if overrides:
        raise ConfigError(f"models takes no arguments, but was given {', '.join(overrides)}")
    configs = {name: load_config({"model": name}) for name in available("model")}
    return {
        "models": [
            {"name": name, "backbone": config.backbone.name, "optimizer": config.optimizer}
            for name, config in configs.items()
        ]
    }


def _render(result: dict[str, Any]) -> str:
    rows = [["model", "backbone (timm)", "optimizer"]]
    rows += [[model["name"], model["backbone"], model["optimizer"]] for model in result["models"]]
    return listing(rows) + "\nmodel=timm:<name> takes any other timm backbone with pyramid features."
