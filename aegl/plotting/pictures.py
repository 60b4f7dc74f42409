"""Example images of evaluations, ground truth beside what the runs found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aegl.data.preprocess import load_image
from aegl.data.run_lengths import decode
from aegl.errors import DataError
from aegl.plots.draw import draw_detections
from aegl.plotting.records import RunRecord

_SIDE = 480
"""Longest side of a picture in pixels: enough to see, small enough for twelve of them in a page."""


@dataclass(frozen=True)
class Classes:
    """What labels mean.

    Args:
        names: of the classes.
        bands: ``[C]`` index of each class into ``band_names``.
        band_names: rarest first.
    """

    names: Sequence[str]
    bands: np.ndarray
    band_names: Sequence[str]


def classes_of(run: RunRecord) -> Classes:
    """The classes that a run was evaluated on."""
    return Classes(run.metrics["per_class"]["class"], run.class_band, run.band_names)


def rows_of_pictures(
    examples: Sequence[Sequence[Mapping[str, Any]]], classes: Classes
) -> list[tuple[str, list[Image.Image]]]:
    """For every image its caption and its pictures: the ground truth, then what each run found.

    Images whose file is gone are left out.

    Args:
        examples: for every run its entries of ``examples.json``, all of the same images.
        classes: what labels mean.
    """
    rows = []
    for of_runs in zip(*examples, strict=True):
        first = of_runs[0]
        image = None if first["file"] is None else _opened(Path(first["file"]))
        if image is None:
            continue
        found = ", ".join(str(entry["found"]) for entry in of_runs)
        caption = f"image {first['image_id']}: {found} of {len(first['objects'])} objects found"
        truth = _drawn(image, first, first["objects"], classes, is_found=False)
        found_by = [_drawn(image, first, entry["detections"], classes, is_found=True) for entry in of_runs]
        rows.append((caption, [truth, *found_by]))
    return rows


def _opened(file: Path) -> Image.Image | None:
    try:
        return Image.fromarray(load_image(file))
    except DataError:
        return None


def _drawn(
    image: Image.Image,
    entry: Mapping[str, Any],
    things: Sequence[Mapping[str, Any]],
    classes: Classes,
    *,
    is_found: bool,
) -> Image.Image:
    """The image with objects or detections drawn over it."""
    scale = min(1.0, _SIDE / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    labels = np.array([thing["label"] for thing in things], dtype=np.int64)
    boxes = np.array([thing["box"] for thing in things], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes *= [size[0] / entry["width"], size[1] / entry["height"]] * 2

    def mask_of(number: int) -> np.ndarray:
        counts = things[number]["mask"]
        if counts is None:
            return np.zeros(size[::-1], dtype=bool)
        mask = decode({"size": [entry["height"], entry["width"]], "counts": counts.encode("ascii")})
        return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size)) > 127

    return draw_detections(
        np.asarray(image.resize(size)).copy(),
        boxes=boxes,
        scores=np.array([t["score"] for t in things], dtype=np.float64) if is_found else None,
        names=[classes.names[label] for label in labels],
        bands=classes.bands[labels],
        band_names=classes.band_names,
        mask_of=mask_of,
    )
