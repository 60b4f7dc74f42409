"""Write a synthetic annotation file of the size and shape of LVIS v1 train: long-tailed, federated, with polygons.

    python benchmarks/make_annotations.py /tmp/lvis_like.json
    python benchmarks/make_annotations.py /tmp/small.json --images 2000

At full size (100,170 images) it holds 1,270,141 polygons of 1203 classes in about 1 GB. The file is written as it is
made, the annotations before the images as in LVIS's own, and in random order, which is the worst case for whoever
wants them by image. The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

FULL_IMAGES, FULL_ANNOTATIONS, CLASSES = 100_170, 1_270_141, 1203
CORNERS = 40
"""Corners of an average polygon."""
CLUMP = 0.45
"""Share of the objects that stand in the image of another one of their class."""
BLOCK = 20_000


@dataclass(frozen=True)
class Labels:
    """What stands where: ``image`` and ``label`` of every annotation, ``[A]``, in random order."""

    image: np.ndarray
    label: np.ndarray
    num_images: int

    def present(self) -> tuple[np.ndarray, np.ndarray]:
        """Image and label of every class present in an image, sorted by image."""
        pairs = np.unique(self.image * CLASSES + self.label)
        return pairs // CLASSES, pairs % CLASSES


def draw_labels(num_images: int, num_annotations: int, rng: np.random.Generator) -> Labels:
    """A long tail as steep as that of LVIS: from one instance to about 4 % of all."""
    share = np.arange(1, CLASSES + 1) ** -1.1 * np.exp(-np.arange(CLASSES) / 260)
    counts = np.maximum(1, share / share.sum() * num_annotations).astype(np.int64)
    counts[0] += num_annotations - counts.sum()
    label = np.repeat(rng.permutation(CLASSES), counts)
    begins = (rng.random(num_annotations) > CLUMP) | np.diff(label, prepend=-1).astype(bool)
    image = rng.integers(0, num_images, num_annotations)[np.cumsum(begins) - 1]
    order = rng.permutation(num_annotations)
    return Labels(image[order], label[order], num_images)


def categories(labels: Labels) -> Iterator[dict[str, Any]]:
    """With LVIS's counts and bands."""
    _, present = labels.present()
    images = np.bincount(present, minlength=CLASSES).tolist()
    instances = np.bincount(labels.label, minlength=CLASSES).tolist()
    for c in range(CLASSES):
        band = "r" if images[c] <= 10 else "c" if images[c] <= 100 else "f"
        yield {"id": c + 1, "name": f"class_{c + 1}", "synset": f"class.n.{c + 1:04d}", "frequency": band,
               "image_count": images[c], "instance_count": instances[c]}  # fmt: skip


def images(labels: Labels, sizes: np.ndarray, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Some classes of an image not exhaustively annotated, some known to be absent, the others not looked for."""
    image_of, label_of = labels.present()
    starts = np.searchsorted(image_of, np.arange(labels.num_images + 1))
    for i, (height, width) in enumerate(sizes.tolist()):
        held = label_of[starts[i] : starts[i + 1]]
        absent = np.setdiff1d(rng.integers(0, CLASSES, 6), held)
        partly = held[rng.random(len(held)) < 0.1]
        folder = "train2017" if rng.random() < 0.9 else "val2017"
        yield {"id": i + 1, "height": height, "width": width, "license": 1,
               "coco_url": f"http://images.cocodataset.org/{folder}/{i + 1:012d}.jpg",
               "neg_category_ids": (absent + 1).tolist(),
               "not_exhaustive_category_ids": (partly + 1).tolist()}  # fmt: skip


def annotations(labels: Labels, sizes: np.ndarray, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Star-shaped polygons of 3 to some hundred corners, two decimals as in LVIS."""
    for begin in range(0, len(labels.image), BLOCK):
        image, label = labels.image[begin : begin + BLOCK], labels.label[begin : begin + BLOCK]
        corners = np.clip(rng.lognormal(np.log(CORNERS) - 0.32, 0.8, len(image)), 3, 600).astype(np.int64)
        first = np.concatenate([[0], np.cumsum(corners)])
        owner = np.repeat(np.arange(len(image)), corners)
        place = np.arange(len(owner)) - first[owner]
        angle = 2 * np.pi * (place + rng.random(len(owner)) * 0.8) / corners[owner]
        extent = sizes[image][:, ::-1]
        radius = extent * rng.uniform(0.01, 0.2, (len(image), 1))
        centre = radius + (extent - 2 * radius) * rng.random((len(image), 2))
        ray = np.stack([np.cos(angle), np.sin(angle)], axis=1) * rng.uniform(0.6, 1, (len(owner), 1))
        points = np.round(centre[owner] + radius[owner] * ray, 2)
        low, high = (f.reduceat(points, first[:-1]) for f in (np.minimum, np.maximum))
        boxes = np.round(np.concatenate([low, high - low], axis=1), 2).tolist()
        areas = _areas(points, first)
        flat, firsts = points.reshape(-1).tolist(), (2 * first).tolist()
        for k, (i, c) in enumerate(zip(image.tolist(), label.tolist(), strict=True)):
            yield {"id": begin + k + 1, "image_id": i + 1, "category_id": c + 1, "area": areas[k], "bbox": boxes[k],
                   "segmentation": [flat[firsts[k] : firsts[k + 1]]]}  # fmt: skip


def _areas(points: np.ndarray, first: np.ndarray) -> list[float]:
    """Of each polygon, by the shoelace formula."""
    following = np.roll(points, -1, axis=0)
    following[first[1:] - 1] = points[first[:-1]]
    cross = points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]
    return np.round(np.abs(np.add.reduceat(cross, first[:-1])) / 2, 2).tolist()


def write_table(stream: TextIO, name: str, records: Iterable[dict[str, Any]], *, last: bool = False) -> None:
    """``"name": [...]``, record by record."""
    stream.write(f'"{name}": [')
    for number, record in enumerate(records):
        stream.write(f"{', ' if number else ''}{json.dumps(record)}")
    stream.write("]}" if last else "], ")


def make(path: Path, num_images: int, seed: int = 0) -> None:
    """Write the file; the number of annotations goes with that of images."""
    rng = np.random.default_rng(seed)
    labels = draw_labels(num_images, max(2 * CLASSES, round(FULL_ANNOTATIONS * num_images / FULL_IMAGES)), rng)
    sizes = rng.choice([[480, 640], [640, 480], [427, 640], [640, 427]], num_images)
    with path.open("w", encoding="ascii") as stream:
        stream.write('{"info": {"description": "synthetic, of the shape of LVIS v1 train", "version": "1"}, ')
        write_table(stream, "annotations", annotations(labels, sizes, rng))
        write_table(stream, "images", images(labels, sizes, rng))
        write_table(stream, "licenses", [{"id": 1, "name": "none"}])
        write_table(stream, "categories", categories(labels), last=True)


def main() -> None:
    """Write the file that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--images", type=int, default=FULL_IMAGES)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    make(args.path, args.images, args.seed)
    print(f"{args.path}: {args.path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
