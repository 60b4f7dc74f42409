"""Write ground truth like LVIS val and detections of it, seeded, image by image: for tests of scoring at full size.

    python benchmarks/make_detections.py /tmp/val --images 19809 --per-image 300

Writes `gt.json` (about 12 polygons an image, federated) and `results.json` (boxes and masks), both in bounded memory.
Half of an image's detections are jittered copies of its objects, the others strays. As after non-maximum suppression,
few of the copies have the class of their object; the other classes are drawn by frequency.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
from pycocotools import mask as mask_utils

Json = dict[str, Any]
CORNERS = 24
SIZES = np.array([(480, 640), (640, 480), (427, 640), (640, 427), (640, 640)])
"""Height, width."""
encode = msgspec.json.Encoder().encode


@dataclass
class Image:
    """One image with what is in it."""

    record: Json
    objects: list[Json]
    detections: list[Json]


class Generator:
    """Draws images one by one; the same seed gives the same images.

    Args:
        seed: of the random numbers.
        classes: number of classes, ids from 1.
        per_image: detections of each image.
        masks: whether detections have masks.
    """

    def __init__(self, seed: int, classes: int, per_image: int, *, masks: bool = True) -> None:
        self.seed, self.classes, self.per_image, self.masks = seed, classes, per_image, masks
        share = 1 / np.arange(1, classes + 1)
        self._rank_of_class = np.random.default_rng(seed).permutation(classes) + 1
        self._cumulative = np.cumsum(share / share.sum())
        self.angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)

    def images(self, count: int) -> Iterator[Image]:
        """The first ``count`` images."""
        annotations = 0
        for image_id in range(1, count + 1):
            image = self._image(np.random.default_rng([self.seed, image_id]), image_id)
            for annotation in image.objects:
                annotations += 1
                annotation["id"] = annotations
            yield image

    def categories(self) -> list[Json]:
        """The classes; frequencies as LVIS counts them."""
        images = 100_000 * np.diff(self._cumulative, prepend=0)
        frequency = {
            int(c): "r" if n <= 10 else "c" if n <= 100 else "f"
            for c, n in zip(self._rank_of_class, images, strict=True)
        }
        return [{"id": c, "name": f"class {c}", "frequency": frequency[c]} for c in range(1, self.classes + 1)]

    def _image(self, rng: np.random.Generator, image_id: int) -> Image:
        height, width = (int(v) for v in SIZES[rng.integers(len(SIZES))])
        present = np.unique(self._draw_classes(rng, int(rng.integers(1, 7))))
        absent = np.setdiff1d(self._draw_classes(rng, 6), present)
        count = min(int(rng.geometric(1 / 12)), 100)
        boxes, shapes = self._boxes(rng, count, height, width), rng.uniform(0.6, 1.0, (count, CORNERS))
        labels = rng.choice(present, count)
        polygons = self._polygons(boxes, shapes, height, width)
        record = {"id": image_id, "height": height, "width": width, "file_name": f"{image_id:012d}.jpg"}
        record["coco_url"] = f"http://images.cocodataset.org/val2017/{image_id:012d}.jpg"
        record["neg_category_ids"] = absent.tolist()
        record["not_exhaustive_category_ids"] = present[rng.random(len(present)) < 0.2].tolist()
        objects = [self._object(image_id, *parts) for parts in zip(labels.tolist(), polygons, strict=True)]
        detections = self._detections(rng, image_id, (height, width), boxes, shapes, labels)
        return Image(record, objects, detections)

    def _object(self, image_id: int, label: int, polygon: np.ndarray) -> Json:
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        x, y = polygon.T
        area = abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
        box = [float(v) for v in (*low, *np.maximum(high - low, 0.01).round(2))]
        annotation = {"image_id": image_id, "category_id": label, "bbox": box, "area": area, "iscrowd": 0}
        return annotation | {"segmentation": [polygon.reshape(-1).tolist()]}

    def _detections(
        self,
        rng: np.random.Generator,
        image_id: int,
        size: tuple[int, int],
        boxes: np.ndarray,
        shapes: np.ndarray,
        labels: np.ndarray,
    ) -> list[Json]:
        copies = self.per_image // 2
        source = rng.integers(len(boxes), size=copies)
        noise = rng.normal(0, rng.choice([0.02, 0.1, 0.3], (copies, 1)), (copies, 4))
        jittered = boxes[source] + noise * boxes[source][:, [2, 3, 2, 3]]
        strays = self._boxes(rng, self.per_image - copies, *size)
        found = np.concatenate([jittered, strays]).astype(np.float32).astype(np.float64)
        found[:, :2] = np.clip(found[:, :2], 0, np.array(size)[::-1] - 2)
        found[:, 2:] = np.clip(found[:, 2:], 1, np.array(size)[::-1] - found[:, :2])
        own = np.concatenate(
            [_is_among_first(source, 2) | (rng.random(copies) < 0.05), np.zeros(len(strays), dtype=bool)]
        )
        classes = np.where(own, np.resize(labels[source], len(own)), self._draw_classes(rng, len(own))).tolist()
        scores = rng.beta(0.5, 2, len(found)).astype(np.float32).tolist()
        records: list[Json] = [
            {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
            for label, box, score in zip(classes, found.tolist(), scores, strict=True)
        ]
        if self.masks:
            shape = np.concatenate([shapes[source], rng.uniform(0.6, 1.0, (len(strays), CORNERS))])
            polygons = self._polygons(found, shape, *size).reshape(len(found), -1).tolist()
            for record, rle in zip(records, _rles(polygons, size), strict=True):
                record["segmentation"] = {"size": list(size), "counts": rle["counts"].decode()}
        return [records[row] for row in np.argsort([-r["score"] for r in records], kind="stable")]

    def _draw_classes(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return np.asarray(self._rank_of_class[np.searchsorted(self._cumulative, rng.random(count), side="right")])

    def _boxes(self, rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
        sides = np.exp(rng.normal(np.log(60), 0.9, (count, 2)))
        sides = np.clip(sides, 4, [width - 2, height - 2])
        return np.concatenate([rng.random((count, 2)) * ([width, height] - sides), sides], axis=1)

    def _polygons(self, boxes: np.ndarray, shapes: np.ndarray, height: int, width: int) -> np.ndarray:
        """``[n, CORNERS, 2]``: a wobbly ellipse in each box, with two decimals as in LVIS."""
        unit = np.stack([np.cos(self.angles), np.sin(self.angles)], axis=-1) * shapes[..., None] / 2 + 0.5
        points = boxes[:, None, :2] + unit * boxes[:, None, 2:]
        return np.asarray(np.clip(points, 0, [width, height]).round(2))


def _is_among_first(values: np.ndarray, count: int) -> np.ndarray:
    """Whether an entry is one of the first ``count`` of its value."""
    order = np.argsort(values, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(values)) - np.searchsorted(values[order], values[order], side="left")
    return np.asarray(rank < count)


def _rles(polygons: list[list[float]], size: tuple[int, int]) -> Iterator[Json]:
    for start in range(0, len(polygons), 128):
        yield from mask_utils.frPyObjects(polygons[start : start + 128], *size)


class ListFile:
    """Writes a list of records, one a line, into a JSON file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._empty = file, True

    def add(self, records: list[Json]) -> None:
        for record in records:
            self._file.write((b"" if self._empty else b",\n") + encode(record))
            self._empty = False


def write(folder: Path, generator: Generator, count: int) -> None:
    """`gt.json` and `results.json`; annotations wait in a file of their own until the list of images is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    waiting = folder / "annotations.tmp"
    with (folder / "gt.json").open("wb") as gt, (folder / "results.json").open("wb") as results:
        with waiting.open("wb") as file:
            images, annotations, detections = ListFile(gt), ListFile(file), ListFile(results)
            gt.write(b'{"categories": ' + encode(generator.categories()) + b',\n"images": [\n')
            results.write(b"[")
            for image in generator.images(count):
                images.add([image.record])
                annotations.add(image.objects)
                detections.add(image.detections)
        gt.write(b'],\n"annotations": [\n')
        with waiting.open("rb") as file:
            while block := file.read(1 << 22):
                gt.write(block)
        gt.write(b"\n]}\n")
        results.write(b"]\n")
    waiting.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=19_809)
    parser.add_argument("--per-image", type=int, default=300)
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("--boxes-only", action="store_true", help="leave out the masks of the detections")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.folder, Generator(args.seed, args.classes, args.per_image, masks=not args.boxes_only), args.images)
    for path in (args.folder / "gt.json", args.folder / "results.json"):
        print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
