"""Speed of LVIS box scoring against the official package, and whether the precision agrees, on synthetic detections.

python benchmarks/bench_scoring.py --images 500
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from lvis import LVIS, LVISEval, LVISResults

from aegl.metrics import DetectionTable, GroundTruth, evaluate

SIZE = 640


def random_ground_truth(rng: np.random.Generator, num_images: int, num_classes: int) -> dict[str, Any]:
    """About as federated as LVIS val: some 12 objects of 6 classes an image, 6 classes known to be absent."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, num_images + 1):
        classes = (rng.choice(num_classes, 12, replace=False) + 1).tolist()
        image = {"id": image_id, "height": SIZE, "width": SIZE, "not_exhaustive_category_ids": classes[:1]}
        images.append(image | {"neg_category_ids": classes[6:]})
        for _ in range(int(rng.integers(1, 24))):
            box = [*rng.uniform(0, 400, 2).tolist(), *rng.uniform(5, 240, 2).tolist()]
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": int(rng.choice(classes[:6]))}
            annotations.append(annotation | {"bbox": box, "area": box[2] * box[3] * 0.7})
    categories = [{"id": c, "name": str(c), "frequency": "rcf"[c % 3]} for c in range(1, num_classes + 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def random_results(rng: np.random.Generator, dataset: dict[str, Any], per_image: int) -> list[dict[str, Any]]:
    """Half jittered ground truth, half strays of classes the image knows of."""
    by_image: dict[int, list[dict[str, Any]]] = {i["id"]: [] for i in dataset["images"]}
    for annotation in dataset["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    results = []
    for image in dataset["images"]:
        objects = by_image[image["id"]]
        for k in range(per_image):
            source = objects[int(rng.integers(len(objects)))]
            box = np.array(source["bbox"]) * (1 + rng.normal(0, 0.1 if k % 2 else 0.5, 4))
            known = [
                source["category_id"],
                *image["neg_category_ids"],
                int(rng.integers(len(dataset["categories"]))) + 1,
            ]
            category = known[0] if k % 2 else int(rng.choice(known))
            record = {"image_id": image["id"], "category_id": category, "score": float(rng.random())}
            results.append(record | {"bbox": np.abs(box).tolist()})
    return results


def view_of(dataset: dict[str, Any]) -> GroundTruth:
    """Flat arrays; the classes are numbered from 1, images and annotations lie in the order of their ids."""
    num_classes = len(dataset["categories"])
    annotations = dataset["annotations"]

    def keys(name: str) -> np.ndarray:
        return np.sort([row * num_classes + c - 1 for row, i in enumerate(dataset["images"]) for c in i[name]])

    return GroundTruth(
        image_ids=np.array([i["id"] for i in dataset["images"]]),
        image_sizes=np.full((len(dataset["images"]), 2), SIZE),
        num_classes=num_classes,
        ann_ids=np.array([a["id"] for a in annotations]),
        ann_image=np.array([a["image_id"] - 1 for a in annotations]),
        ann_labels=np.array([a["category_id"] - 1 for a in annotations]),
        ann_boxes_xywh=np.array([a["bbox"] for a in annotations]),
        ann_areas=np.array([a["area"] for a in annotations]),
        ann_crowd=np.zeros(len(annotations), dtype=bool),
        ann_ignore=np.zeros(len(annotations), dtype=bool),
        federated=True,
        negative=keys("neg_category_ids"),
        not_exhaustive=keys("not_exhaustive_category_ids"),
        segmentation=lambda row: None,
    )


def timed(what: str, action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result of one call."""
    start = time.perf_counter()
    result = action()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:<24}{seconds:8.2f} s   (peak memory of the process so far {peak:.1f} GB)")
    return seconds, result


def run_official(dataset: dict[str, Any], results: list[dict[str, Any]]) -> LVISEval:
    """The lvis package; it still asks NumPy for the name it dropped in 1.24."""
    np.float = float  # type: ignore[attr-defined]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(dataset, file)
        file.flush()
        gt = LVIS(file.name)
    judged = LVISEval(gt, LVISResults(gt, results), "bbox")
    judged.run()
    return judged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--per-image", type=int, default=300)
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.disable(logging.WARNING)

    rng = np.random.default_rng(args.seed)
    dataset = random_ground_truth(rng, args.images, args.classes)
    results = random_results(rng, dataset, args.per_image)
    gt = view_of(dataset)
    names = SimpleNamespace(ids=[c["id"] for c in dataset["categories"]])
    store: Any = SimpleNamespace(image_ids=gt.image_ids, image_sizes=gt.image_sizes, categories=names)
    print(f"{args.images} images, {len(gt.ann_ids)} annotations, {len(results)} detections, {args.classes} classes")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        path.write_text(json.dumps(results))
        _, table = timed("aegl: read the JSON", lambda: DetectionTable.from_results_json(path, store))
    band = np.arange(1, args.classes + 1) % 3
    options: dict[str, Any] = {
        "protocol": "lvis",
        "iou_type": "bbox",
        "class_band": band,
        "band_names": ("r", "c", "f"),
    }
    ours, result = timed("aegl: score", lambda: evaluate(gt, table, **options))
    theirs, judged = timed("lvis: read and score", lambda: run_official(dataset, results))
    difference = np.abs(result.precision - judged.eval["precision"]).max()
    print(
        f"AP {result.summary['AP']:.4f}; largest difference of precision {difference:.1e}; {theirs / ours:.1f} x faster"
    )


if __name__ == "__main__":
    main()
