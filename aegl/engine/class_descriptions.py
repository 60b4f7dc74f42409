"""Tells the parts of a model that group classes what the classes are like, before training starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from aegl.config import Config
from aegl.data.class_descriptions import mean_masks, parents
from aegl.engine.checkpoint import Checkpoint
from aegl.engine.restore import rebuild_model
from aegl.engine.splits import Splits
from aegl.errors import ConfigError
from aegl.longtail.classifiers import output_layers
from aegl.longtail.clustering import grouping_parts
from aegl.metadata import ModelMeta

_MOST_OTHER_LOGITS = 2
"""Columns that a classifier has behind those of its classes, at most: objectness has two."""
_WEIGHTS = {"box_head": "box_head.classifier.", "mask_head": "mask_head.predictor."}
"""The layers that are trained for what a part of each head makes of the descriptions."""


def describe_classes(
    model: nn.Module, meta: ModelMeta, config: Config, splits: Splits, start: Checkpoint | None, fresh: Sequence[str]
) -> None:
    """Describe the classes to every part of a model that asks, unless it came with what it has made of them before.

    Args:
        model: as training starts with it.
        meta: of ``model``.
        config: of the run.
        splits: the data.
        start: the run that this one starts from, or None.
        fresh: names of the model's tensors that were not taken over from ``start``.

    Raises:
        ConfigError: if a description cannot be had, or does not fit the part's options.
    """
    categories = splits.train.categories
    sources: dict[str, Callable[[], Tensor]] = {
        "classifier": lambda: _classifier_rows(start, meta, config),
        "mask": lambda: torch.from_numpy(mean_masks(splits.train)),
        "parent": lambda: torch.from_numpy(parents(meta.names, categories.supercategories, config.class_parents)),
    }
    known: dict[str, Tensor] = {}
    for name, part in grouping_parts(model):
        tables = tuple(f"{name}.{table}" for table in part.class_tables)
        weights = _WEIGHTS[name.partition(".")[0]]
        if start is None or any(tensor in tables or tensor.startswith(weights) for tensor in fresh):
            known |= {wanted: sources[wanted]() for wanted in part.class_descriptions if wanted not in known}
            part.describe_classes({wanted: known[wanted] for wanted in part.class_descriptions})


def _classifier_rows(start: Checkpoint | None, meta: ModelMeta, config: Config) -> Tensor:
    """``[C, F]``: what the classifier of the run that this one starts from compares features with."""
    if start is None:
        raise ConfigError(
            f"loss.name={config.loss.name}: groups the classes by the rows of a trained classifier; give "
            "weights=<checkpoint of a baseline on the same classes>"
        )
    if start.meta.names != meta.names:
        raise ConfigError(
            f"weights={config.weights}, loss.name={config.loss.name}: groups the classes by the rows of the trained "
            f"classifier, which must be of the same classes; it has {start.meta.num_classes}, the data "
            f"{meta.num_classes}, or other names"
        )
    layer = output_layers(rebuild_model(start)[0].box_head.classifier)[0]
    rows = layer.weight
    assert isinstance(rows, Tensor)
    if len(rows) > meta.num_classes + _MOST_OTHER_LOGITS:
        raise ConfigError(
            f"weights={config.weights}, loss.name={config.loss.name}: groups the classes by the rows of the trained "
            f"classifier, but that of method={start.meta.method} has {len(rows)} rows, not one per class in their "
            "order; start from another baseline"
        )
    return rows.detach()[: meta.num_classes]
