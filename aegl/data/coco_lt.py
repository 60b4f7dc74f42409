"""The training split of COCO-LT (Wang et al., ECCV 2020, "SimCal"), from COCO's own training file.

The authors published no rule that can be run, but a sample: of images and annotations of COCO's train2017, such that
4, 24, 32 and 20 of the 80 classes have [1, 20), [20, 400), [400, 8000) and at least 8000 instances. So there are two
ways here: to cut the file down to the images that a list names, or to draw a sample anew that has the published bins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from aegl.data.convert import coco_lvis
from aegl.data.convert.files import new_file
from aegl.data.convert.model import of_store
from aegl.data.store import AnnotationStore
from aegl.errors import DataError
from aegl.progress import Progress

FILE = "coco_lt_train.json"
BINS = ((4, 1, 19), (24, 20, 399), (32, 400, 7999))
"""From the rarest: number of classes, fewest and most instances of each. The 20 most frequent keep what they have."""
NUM_CLASSES = 80
_SOURCE = "train_coco2017_LT_sampled.json of github.com/twangnh/SimCal"
_OF_LIST = (
    "the images are those of the list, with all their annotations; the authors' own sample "
    f"({_SOURCE}) leaves out annotations too, so counts can be above theirs"
)
_DRAWN = (
    f"a seeded draw with the published number of classes in each bin, not the authors' sample ({_SOURCE}): figures are "
    "comparable within one draw, and with published ones only roughly"
)


def write_coco_lt(
    store: AnnotationStore, output: Path, *, images: Path | None, seed: int, progress: Progress
) -> dict[str, Any]:
    """Write ``coco_lt_train.json`` into a folder.

    Args:
        store: COCO's ``instances_train2017.json``.
        output: the folder; other files in it are left alone.
        images: a text file of image ids or file names; None to draw.
        seed: of the draw.
        progress: told how far it is.

    Returns:
        ``{"file", "relation", "images", "instances", "bins": {bin: classes}}``; ``relation`` says in words what the
        file has to do with the authors' sample.

    Raises:
        DataError: for a file of other than 80 classes, or a list that names images which the file lacks.
        ConfigError: if the file is there already.
    """
    if store.num_classes != NUM_CLASSES:
        raise DataError(f"{store.source}: has {store.num_classes} classes; COCO-LT is made from COCO's {NUM_CLASSES}")
    if images is None:
        kept = draw(store, seed)
        rows = np.unique(store.ann_image[kept & ~np.asarray(store.ann_crowd)])
    else:
        rows = _listed(store, images)
        kept = np.isin(store.ann_image, rows)
    file = output / FILE
    with new_file(file) as path:
        progress.start(f"write {FILE}", len(rows), "image")
        coco_lvis.write_split(of_store(store, rows, kept), path, "coco", None, progress)
        progress.finish()
    counted = kept & np.isin(store.ann_image, rows) & ~np.asarray(store.ann_crowd)
    counts = np.bincount(np.asarray(store.ann_labels)[counted], minlength=NUM_CLASSES)
    edges = [1, *(most + 1 for _, _, most in BINS)]
    of_bin = np.bincount(np.digitize(counts, edges), minlength=len(edges) + 1).tolist()
    return {
        "file": str(file),
        "relation": _DRAWN if images is None else _OF_LIST,
        "images": len(rows),
        "instances": int(counted.sum()),
        "bins": dict(zip(("0", "1-19", "20-399", "400-7999", "8000-"), of_bin, strict=True)),
    }


def targets(counts: np.ndarray) -> np.ndarray:
    """``[C]`` instances wanted of each class, from ``[C]`` instances there are.

    Classes keep their order; within a bin the numbers fall evenly on a logarithmic scale. None gets more than it has.
    """
    order = np.argsort(counts, kind="stable")
    wanted = np.array(counts)
    begin = 0
    for number, fewest, most in BINS:
        wanted[order[begin : begin + number]] = np.geomspace(fewest, most, number).round()
        begin += number
    return np.minimum(wanted, counts)


def draw(store: AnnotationStore, seed: int) -> np.ndarray:
    """``[A]`` bool, true for annotations that are kept: of each class as many as :func:`targets` says, image by image.

    Images are taken in a random order, the same for every class, so that classes keep standing together; crowds stay
    where their image does. A pure function of file and seed.
    """
    labels, image = np.asarray(store.ann_labels), store.ann_image
    single = ~np.asarray(store.ann_crowd)
    wanted = targets(np.bincount(labels[single], minlength=store.num_classes))
    place = np.random.default_rng(seed).permutation(len(store))
    kept = ~single
    for c in range(store.num_classes):
        rows = np.flatnonzero(single & (labels == c))
        kept[rows[np.argsort(place[image[rows]], kind="stable")][: wanted[c]]] = True
    return kept


def _listed(store: AnnotationStore, file: Path) -> np.ndarray:
    """Rows of the images that a text file names by id or file name."""
    try:
        words = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text file"
        raise DataError(f"images={file}: cannot be read ({reason})") from error
    row_of = {str(key): row for row, key in enumerate(store.image_ids.tolist())}
    row_of |= {Path(store.image_name(row)).name: row for row in range(len(store))}
    unknown = [word for word in words if Path(word).name not in row_of]
    if unknown or not words:
        what = f"{len(unknown)} of {len(words)} are not in {store.source}: {', '.join(unknown[:3])}"
        raise DataError(f"images={file}: {what if words else 'names no image'}; give an id or file name a line")
    return np.unique([row_of[Path(word).name] for word in words])
