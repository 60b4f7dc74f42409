"""The function behind `aegl export`; see :mod:`aegl.tasks`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from aegl.config import load_config
from aegl.data_tasks import open_source
from aegl.errors import ConfigError
from aegl.progress import Progress
from aegl.trained import Overrides, find_weights, of_the_model, request_of


def export(overrides: Overrides, progress: Progress) -> dict[str, Any]:
    """Write the model as ONNX beside its weights, prove it, and return where everything lies.

    With format=triton a model repository is made of the file too; then `weights=` may be an ONNX file.
    """
    from aegl.engine.checkpoint import load_checkpoint
    from aegl.engine.memory import EXPORT_REMEDIES, out_of_memory_told
    from aegl.engine.restore import rebuild_model
    from aegl.export.deliver import deliver, deliver_existing
    from aegl.export.graph_forms import GraphForm
    from aegl.export.pipeline import export_and_prove
    from aegl.export.precision import choose_precision

    request = request_of(overrides)
    weights = find_weights(request, progress)
    if weights.suffix == ".onnx" and request.format == "triton":
        return deliver_existing(weights, overrides, progress)
    if weights.suffix == ".onnx":
        raise ConfigError(f"weights={weights}: is an ONNX file already; give the .pt it was made from")
    checkpoint = load_checkpoint(weights)
    config = load_config(overrides, base=of_the_model(checkpoint.config))
    model, meta = rebuild_model(checkpoint, config)
    with out_of_memory_told(lambda: f"exporting {weights}", EXPORT_REMEDIES):
        exported = export_and_prove(
            model,
            replace(meta, imgsz=config.imgsz, max_size=config.max_size),
            weights.with_suffix(".onnx"),
            config=of_the_model(config.model_dump(mode="json")),
            opset=config.opset,
            dynamic=config.dynamic,
            parity=config.parity,
            progress=progress,
            form=GraphForm(config.masks, config.preprocess),
            precision=choose_precision(config, partial(open_source, config, progress)),
        )
    return deliver(exported, config, progress)
