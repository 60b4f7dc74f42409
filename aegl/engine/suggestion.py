"""What would suit the user's own data, said where they have left it open."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aegl.config import Config, shipped
from aegl.data.advice import advise
from aegl.data.source import resolve_data

LOGGER = logging.getLogger("aegl")

_CHOICES = ("method", "sampler", "loss", "cfg", "resume")
"""Who gives one of these has made a choice."""


def suggest(config: Config, asked: Mapping[str, Any]) -> None:
    """Log what `aegl data advise` proposes, where method and sampler of a data set of the user's are not chosen.

    Args:
        config: of the training to come; its data has been opened without complaint.
        asked: the keys that the user gave; none for a training that another one asks for, such as a stage before.
    """
    if not asked or config.data is None or config.data in shipped.available("data"):
        return
    if any(key.partition(".")[0] in _CHOICES for key in asked):
        return
    source = resolve_data(config.data, data_dir=Path(config.data_dir), shapes=config.shapes, bands=config.bands)
    advice = advise(source, config.data)
    proposed = " ".join(proposal["argument"] for proposal in advice["proposals"])
    (why,) = (proposal["reason"] for proposal in advice["proposals"] if proposal["key"] == "method")
    LOGGER.info(
        "method=%s and sampler=%s are the defaults; for this data `aegl data advise data=%s` proposes %s (%s)",
        *(config.method, config.sampler, config.data, proposed, why),
    )
