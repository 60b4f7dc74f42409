"""`shapes_lt`, the embedded long-tailed data set: generated from a seed, no download.

Classes are shapes in hues and textures, so that every rare class has a frequent look-alike one attribute away; counts
fall exponentially from the most frequent class to the rarest. The files are an LVIS v1 data set like any other.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

from aegl.data.shapes_draw import Figure, place, render
from aegl.data.shapes_layout import (
    Placement,
    ShapeClass,
    arrange,
    assign_counts,
    band_edges,
    long_tail_counts,
    shape_classes,
)
from aegl.errors import DataError

LOGGER = logging.getLogger("aegl")

GENERATOR_VERSION = 1
"""Part of the folder's name: raised whenever the same parameters give other files."""

_JPEG: dict[str, Any] = {"quality": 90, "subsampling": 0}  # full chroma: hue is what tells classes apart
_STREAM = 0x5A9E5  # keeps these random streams apart from all others that use the same seed
_SPLITS = {"train": 1, "val": 1_000_001}  # first image id

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Recipe:
    classes: tuple[ShapeClass, ...]
    train_counts: np.ndarray
    val_counts: np.ndarray
    edges: tuple[int, int]
    imgsz: int
    seed: int


def generate(
    root: Path,
    *,
    classes: int = 100,
    max_instances: int = 800,
    imbalance: float = 800.0,
    val_per_class: int = 12,
    imgsz: int = 96,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Generate the data set below ``root``, or find it there; the same parameters give the same bytes.

    The folder appears complete or not at all, also when several processes generate it at once.

    Args:
        root: folder that holds generated data sets; made if missing.
        classes: number of classes, 4 to 100.
        max_instances: training instances of the most frequent class.
        imbalance: count of the most frequent class over that of the rarest.
        val_per_class: instances of every class in the balanced val split.
        imgsz: side of the square pictures, pixels.
        seed: seed of everything.
        progress: called with (pictures done, pictures in all).

    Returns:
        Folder with ``train.json``, ``val.json`` (LVIS v1, exhaustive: every absent class is a negative) and
        ``images/train``, ``images/val``. Categories carry ``frequency`` by :func:`band_edges` of training image counts.

    Raises:
        ConfigError: when ``classes`` is out of range.
        DataError: when the folder exists but is incomplete.
    """
    name = (
        f"shapes_lt-v{GENERATOR_VERSION}-c{classes}-n{max_instances}-r{imbalance:g}-v{val_per_class}-i{imgsz}-s{seed}"
    )
    target = root / name
    if _is_complete(target):
        return target
    LOGGER.info("generating shapes_lt (once, into %s)", target)
    recipe = _recipe(classes, max_instances, imbalance, val_per_class, imgsz, seed)
    root.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    try:
        _write(building, recipe, progress)
        building.chmod(0o755)  # mkdtemp makes private folders
        _publish(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def _is_complete(folder: Path) -> bool:
    if not folder.exists():
        return False
    missing = [f"{split}.json" for split in _SPLITS if not (folder / f"{split}.json").is_file()]
    if missing:
        raise DataError(f"{folder} lacks {' and '.join(missing)}: delete the folder, it will be generated again")
    return True


def _publish(building: Path, target: Path) -> None:
    try:
        building.rename(target)
    except OSError:
        if not _is_complete(target):  # else another process was faster; its files are the same
            raise


def _recipe(classes: int, max_instances: int, imbalance: float, val_per_class: int, imgsz: int, seed: int) -> _Recipe:
    grid = shape_classes(classes)
    edges = band_edges(max_instances, imbalance)
    counts = long_tail_counts(classes, max_instances, imbalance)
    counts = assign_counts(grid, counts, edges, np.random.default_rng([_STREAM, seed]))
    return _Recipe(tuple(grid), counts, np.full(classes, val_per_class, dtype=np.int64), edges, imgsz, seed)


def _write(folder: Path, recipe: _Recipe, progress: Progress | None) -> None:
    scenes = {
        split: arrange(counts, np.random.default_rng([_STREAM, recipe.seed, first_id]))
        for (split, first_id), counts in zip(_SPLITS.items(), (recipe.train_counts, recipe.val_counts), strict=True)
    }
    categories = _categories(recipe, scenes["train"])
    total, done = sum(map(len, scenes.values())), 0
    for split, first_id in _SPLITS.items():
        (folder / "images" / split).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id, scene in enumerate(scenes[split], start=first_id):
            file_name = f"{split}/{image_id:07d}.jpg"
            objects = _draw(folder / "images" / file_name, scene, recipe, image_id)
            for annotation in objects:
                annotations.append({"id": first_id + len(annotations), "image_id": image_id, **annotation})
            images.append(_image_record(image_id, file_name, objects, recipe))
            done += 1
            if progress is not None:
                progress(done, total)
        _write_json(folder / f"{split}.json", images, annotations, categories)


def _draw(file: Path, scene: Sequence[Placement], recipe: _Recipe, image_id: int) -> list[dict[str, Any]]:
    """Write one picture and return its annotations."""
    side = recipe.imgsz
    figures = []
    for p in scene:
        kind = recipe.classes[p.label]
        outline = place(kind.shape, (p.x * side, p.y * side), p.radius * side, p.angle).round(2)
        figures.append(Figure(outline, kind.hue, kind.texture))
    rng = np.random.default_rng([_STREAM, recipe.seed, image_id, side])
    Image.fromarray(render(figures, side, rng)).save(file, **_JPEG)
    labels = [p.label for p in scene]
    return _annotate(labels, [f.outline for f in figures], side)


def _annotate(labels: Sequence[int], outlines: Sequence[np.ndarray], side: int) -> list[dict[str, Any]]:
    """Category, mask, box and area of every object: a polygon, or the visible part as RLE where another hides it."""
    if not labels:
        return []
    polygons = [outline.ravel().tolist() for outline in outlines]
    masks = mask_utils.decode(mask_utils.frPyObjects(polygons, side, side)).astype(bool)
    above = np.zeros((side, side), dtype=bool)
    records: list[dict[str, Any]] = []
    for k in reversed(range(len(labels))):
        visible = masks[..., k] & ~above
        above |= masks[..., k]
        hidden = int(masks[..., k].sum() - visible.sum())
        mask = _as_rle(visible) if hidden else {"segmentation": [polygons[k]], "bbox": _box_of(outlines[k])}
        records.append({"category_id": labels[k] + 1, **mask, "area": float(visible.sum())})
    return records[::-1]


def _as_rle(visible: np.ndarray) -> dict[str, Any]:
    rle = mask_utils.encode(np.asfortranarray(visible, dtype=np.uint8))
    segmentation = {"size": list(visible.shape), "counts": rle["counts"].decode("ascii")}
    return {"segmentation": segmentation, "bbox": mask_utils.toBbox(rle).tolist()}


def _box_of(outline: np.ndarray) -> list[float]:
    low, high = outline.min(axis=0), outline.max(axis=0)
    return [round(v, 2) for v in (*low.tolist(), *(high - low).tolist())]


def _image_record(image_id: int, file_name: str, objects: Sequence[dict[str, Any]], recipe: _Recipe) -> dict[str, Any]:
    present = {o["category_id"] for o in objects}
    return {
        "id": image_id,
        "file_name": file_name,
        "width": recipe.imgsz,
        "height": recipe.imgsz,
        "neg_category_ids": [c for c in range(1, len(recipe.classes) + 1) if c not in present],
        "not_exhaustive_category_ids": [],
    }


def _categories(recipe: _Recipe, train: Sequence[Sequence[Placement]]) -> list[dict[str, Any]]:
    instances = np.bincount([p.label for scene in train for p in scene], minlength=len(recipe.classes))
    if not np.array_equal(instances, recipe.train_counts):
        raise AssertionError("a class of shapes_lt was not placed as often as planned")
    images = np.bincount(
        [label for scene in train for label in {p.label for p in scene}], minlength=len(recipe.classes)
    )
    rare, common = recipe.edges
    return [
        {
            "id": k + 1,
            "name": kind.name,
            "synset": f"{kind.name}.n.01",
            "synonyms": [kind.name],
            "def": f"a {kind.texture} {kind.hue} {kind.shape}",
            "frequency": "r" if images[k] <= rare else "c" if images[k] <= common else "f",
            "image_count": int(images[k]),
            "instance_count": int(instances[k]),
        }
        for k, kind in enumerate(recipe.classes)
    ]


def _write_json(file: Path, images: list[Any], annotations: list[Any], categories: list[Any]) -> None:
    content = {
        "info": {"description": "shapes_lt: a generated long-tailed data set", "version": str(GENERATOR_VERSION)},
        "licenses": [],
        "categories": categories,
        "images": images,
        "annotations": annotations,
    }
    file.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
