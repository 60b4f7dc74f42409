"""What is recorded, whatever the system: the same names everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aegl.engine.callbacks import LogRecord


def training_figures(record: LogRecord) -> dict[str, float]:
    """Losses, learning rate, throughput, memory and what the loss reports of itself; names without a prefix."""
    return {
        "loss": record.loss,
        **record.terms,
        "lr": record.lr,
        "epoch": record.epoch,
        "images_per_second": record.images_per_second,
        "data_share": record.data_share,
        **({} if record.memory_mb is None else {"memory_mb": record.memory_mb}),
        **{f"diagnostics/{name}": value for name, value in record.diagnostics.items()},
    }


def evaluation_figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """Every figure of boxes and masks in [0, 1], those of the bands among them: ``mask/APr``."""
    return {
        f"{kind}/{name}": float(value)
        for kind in ("box", "mask")
        for name, value in (summary.get(kind) or {}).items()
        if isinstance(value, int | float)
    }
