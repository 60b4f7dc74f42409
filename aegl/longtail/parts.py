"""The parts of a long-tail method put together: which there are, and whether they go with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aegl.errors import ConfigError
from aegl.longtail import AUXILIARY_LOSSES, CALIBRATORS, LOSSES, MEMORIES, SELECTORS
from aegl.longtail.base import AuxiliaryLoss, Calibrator, ClassificationLoss, FeatureMemory, RegionSelector
from aegl.longtail.registry import Registry
from aegl.longtail.statistics import ClassStatistics

NONE = "none"
"""Name of a part that there is not; the classification loss is the one that must be."""

REGISTRIES: dict[str, Registry[Any]] = {
    registry.key: registry for registry in (LOSSES, AUXILIARY_LOSSES, CALIBRATORS, SELECTORS, MEMORIES)
}
"""Every kind of part, by the section of the configuration that sets it up."""


class Choice(Protocol):
    """A part as a user names it."""

    @property
    def name(self) -> str:
        """Name of the part."""
        ...

    def options(self) -> Mapping[str, Any]:
        """Its options by name, those that are given."""
        ...


@dataclass(frozen=True)
class Parts:
    """The parts of a method, made for a training set."""

    loss: ClassificationLoss
    auxiliary: AuxiliaryLoss | None = None
    calibrate: Calibrator | None = None
    selector: RegionSelector | None = None
    memory: FeatureMemory | None = None


def build_parts(stats: ClassStatistics, choices: Mapping[str, Choice]) -> Parts:
    """Make the parts that are chosen.

    Args:
        stats: of the training set.
        choices: by kind, ``loss`` among them.

    Raises:
        ConfigError: for an unknown part or option, or parts that do not go together, with the reason.
    """
    made = {
        kind: REGISTRIES[kind].build(choice.name, stats, **choice.options())
        for kind, choice in choices.items()
        if choice.name != NONE
    }
    parts = Parts(**made)
    for kind, part in made.items():
        if kind != "loss":
            try:
                part.check(parts.loss)
            except ConfigError as error:
                names = f"{kind}.name={choices[kind].name}, loss.name={choices['loss'].name}"
                raise ConfigError(f"{names}: {error}") from None
    return parts


def validate_choice(kind: str, choice: Choice) -> dict[str, Any]:
    """Every option of a chosen part with its value; see :meth:`aegl.longtail.registry.Registry.validate`."""
    if choice.name == NONE and kind != LOSSES.key:
        if options := choice.options():
            raise ConfigError("\n".join(f"{kind}.{option}: unknown option of {kind}.name=none" for option in options))
        return {}
    return REGISTRIES[kind].validate(choice.name, choice.options())
