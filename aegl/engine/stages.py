"""Training in stages: what a run starts from, which of its parts it trains, and which stage comes before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from aegl.config import Config, load_config
from aegl.config.entry import parse_entry
from aegl.config.fields import part_sections
from aegl.config.hints import did_you_mean
from aegl.errors import ConfigError
from aegl.models.mask_rcnn import MaskRCNN

BEFORE = "before"
"""Folder, in a run's own, of the run of the stage before."""


def has_stage_before(config: Config) -> bool:
    """Whether another stage must be trained first."""
    return config.stage.after is not None and config.weights is None


def stage_before(config: Config, run: Path) -> Config:
    """The configuration of the stage that must be trained first.

    It is this one with another method: what is no matter of the method (data, model, length, seed ...) stays.

    Args:
        config: of a run that has such a stage.
        run: its folder; the stage before lies in it.

    Raises:
        ConfigError: if `stage.after` names none.
    """
    of_this_stage = {"resume", "stage", *part_sections()}
    own = {"project": str(run), "name": BEFORE, "exist_ok": True}
    try:
        method, keys = parse_entry(str(config.stage.after))
        return load_config({"method": method, **keys, **own}, base=config.model_dump(exclude=of_this_stage))
    except (ValueError, ConfigError) as error:
        raise ConfigError(f"stage.after={config.stage.after}: {error}") from None


def freeze(model: MaskRCNN, trainable: Sequence[str]) -> None:
    """Train only the named parts; all of them if none is named.

    Raises:
        ConfigError: for a name that is no part of the model.
    """
    if trainable:
        model.freeze_all_but(parts_of(model, trainable, "stage.trainable"))


def parts_of(model: nn.Module, names: Sequence[str], key: str) -> list[str]:
    """The names, checked to be those of submodules. Raises :class:`ConfigError` naming ``key`` and near names."""
    known = [name for name, _ in model.named_modules() if name]
    for name in names:
        if name not in known:
            top = [part for part in known if part.count(".") == 0]
            raise ConfigError(
                f"{key}={name}: no part of the model{did_you_mean(name, known)}; its parts are {', '.join(top)} and "
                "theirs, e.g. box_head.classifier"
            )
    return list(names)
