"""What an exported file is to those who run it: its inputs, its outputs, and what it knows of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aegl.errors import CheckpointError, ExportError
from aegl.metadata import ModelMeta

META_KEY = "aegl"
"""Metadata entry that holds the model's metadata, its configuration and the canvas as JSON."""
INPUT = "images"
"""``[B, 3, H, W]`` float32, RGB in 0..255; or ``[B, H, W, 3]`` uint8 of a file that takes images as they are stored."""
OUTPUTS = ("boxes", "scores", "labels", "masks", "num_detections", "complete")
"""Fields of :class:`aegl.types.Detections`, in its order. A file may have been exported without masks."""
_DTYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


@dataclass(frozen=True)
class Graph:
    """What a file says of itself.

    Args:
        meta: classes, preprocessing and operating point.
        config: configuration of the model.
        canvas: the only height and width it takes, or None where any multiples of the stride will do.
        dtype: of its input.
        channels_last: whether its input is ``[B, H, W, 3]``.
        outputs: names of its outputs, as :data:`OUTPUTS`.
    """

    meta: ModelMeta
    config: dict[str, Any]
    canvas: tuple[int, int] | None
    dtype: Any
    channels_last: bool
    outputs: tuple[str, ...]


def read_graph(session: Any, path: Path) -> Graph:
    """Read it from an open session.

    Raises:
        ExportError: if the file was not written by aegl, or by a version that wrote another form.
    """
    stored = session.get_modelmeta().custom_metadata_map.get(META_KEY)
    if stored is None:
        raise ExportError(f"{path}: an ONNX file, but not one written by `aegl export`: it lacks the metadata")
    try:
        content = json.loads(stored)
        meta = ModelMeta.from_dict(content["meta"])
        canvas = tuple(content["canvas"]) if content["canvas"] else None
        inputs = {entry.name: entry for entry in session.get_inputs()}
        names = {entry.name for entry in session.get_outputs()}
        outputs = tuple(name for name in OUTPUTS if name in names)
        if {*OUTPUTS} - {"masks", *outputs}:
            raise ValueError(f"it has the outputs {sorted(names)}")
        return Graph(
            meta=meta,
            config=dict(content["config"]),
            canvas=canvas,
            dtype=_DTYPES[inputs[INPUT].type],
            channels_last=inputs[INPUT].shape[3] == 3,
            outputs=outputs,
        )
    except (CheckpointError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ExportError(
            f"{path}: its metadata is not what this version of aegl writes ({error}); export the model anew"
        ) from error
