"""Random data sets with everything that makes scoring hard, and the official packages as judges."""

import contextlib
import copy
import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Json = dict[str, Any]


def _blob(rng: np.random.Generator, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask inside a box: an ellipse with a random bite."""
    height, width = size
    y, x = np.mgrid[:height, :width] + 0.5
    left, top, w, h = box
    inside = ((x - left - w / 2) / max(w / 2, 0.5)) ** 2 + ((y - top - h / 2) / max(h / 2, 0.5)) ** 2 <= 1
    return np.asfortranarray(inside & ~((x > left + w * rng.uniform(0.6, 1)) & (y > top + h * 0.5))).astype(np.uint8)


def _random_box(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    w, h = (float(rng.choice([8, 24, 40, 90, 130])) * rng.uniform(0.8, 1.2) for _ in range(2))
    w, h = min(w, size[1] - 1), min(h, size[0] - 1)
    return np.round([rng.uniform(0, size[1] - w), rng.uniform(0, size[0] - h), w, h], 2)


def _rle(mask: np.ndarray) -> Json:
    rle = mask_utils.encode(mask)
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def _segmentation(rng: np.random.Generator, box: np.ndarray, size: tuple[int, int]) -> Any:
    x, y, w, h = (float(v) for v in box)
    if rng.random() < 0.5:
        return [[x, y, x + w, y, x + w, y + h, x + w / 3, y + h * 0.9, x, y + h]]
    return _rle(_blob(rng, box, size))


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Json]:
    """A random LVIS/COCO ground truth: crowds, ignore flags, empty images, absent classes, unsorted image ids."""

    def make(seed: int, num_images: int = 8, num_classes: int = 5, max_objects: int = 12) -> Json:
        rng = np.random.default_rng(seed)
        images, annotations = [], []
        for image_id in rng.permutation(num_images * 3)[:num_images] + 1:
            size = (int(rng.integers(100, 220)), int(rng.integers(100, 220)))
            free = rng.permutation(num_classes) + 1
            present = free[: rng.integers(0, num_classes)]
            absent = [int(c) * 10 for c in free[len(present) :]]
            sloppy = [int(c) * 10 for c in present[:1]] if rng.random() < 0.5 else []
            images.append(
                {
                    "id": int(image_id),
                    "height": size[0],
                    "width": size[1],
                    "file_name": f"{image_id}.jpg",
                    "coco_url": f"http://images.cocodataset.org/val2017/{image_id}.jpg",
                    "neg_category_ids": absent[: rng.integers(0, len(absent) + 1)],
                    "not_exhaustive_category_ids": sloppy + absent[-1:],
                }
            )
            for _ in range(int(rng.integers(0, max_objects)) if len(present) else 0):
                box = _random_box(rng, size)
                crowd = rng.random() < 0.15
                segmentation = _rle(_blob(rng, box, size)) if crowd else _segmentation(rng, box, size)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": int(image_id),
                        "category_id": int(rng.choice(present)) * 10,
                        "bbox": box.tolist(),
                        "area": float(np.round(box[2] * box[3] * rng.uniform(0.5, 1), 2)),
                        "segmentation": segmentation,
                        "iscrowd": int(crowd),
                        "ignore": int(rng.random() < 0.1),
                    }
                )
        categories = [
            {"id": c * 10, "name": f"class {c}", "frequency": "rcf"[c % 3], "image_count": 1, "instance_count": 1}
            for c in range(1, num_classes + 1)
        ]
        return {"images": images, "annotations": annotations, "categories": categories}

    return make


@pytest.fixture(scope="session")
def make_results() -> Callable[..., list[Json]]:
    """Random detections: jittered copies and repeats of the ground truth, strays, and scores with exact ties."""

    def make(dataset: Json, seed: int, strays: int = 10, masks: bool = True, boxes: bool = True) -> list[Json]:
        rng = np.random.default_rng(seed)
        category_ids = [c["id"] for c in dataset["categories"]]
        sizes = {i["id"]: (i["height"], i["width"]) for i in dataset["images"]}
        found = [(a["image_id"], a["category_id"], np.array(a["bbox"])) for a in dataset["annotations"] * 2]
        for image_id in list(sizes)[1:]:  # the first image has no strays, and none at all if it is empty
            for _ in range(int(rng.integers(0, strays + 1))):
                found.append((image_id, int(rng.choice(category_ids)), _random_box(rng, sizes[image_id])))
        results = []
        for row in rng.permutation(len(found)):
            image_id, category_id, box = found[row]
            box = box + rng.normal(0, rng.choice([0, 0.03, 0.15]), 4) * box[[2, 3, 2, 3]]
            box[2:] = np.maximum(box[2:], 1)
            record = {"image_id": image_id, "category_id": category_id, "score": float(np.round(rng.random(), 1))}
            if boxes:
                record["bbox"] = box.tolist()
            if masks:
                record["segmentation"] = _rle(_blob(rng, box, sizes[image_id]))
            results.append(record)
        return results

    return make


@pytest.fixture(scope="session")
def store_of() -> Callable[[Json], Any]:
    """The interface of :class:`aegl.data.store.AnnotationStore` over a data set in memory."""

    def make(dataset: Json) -> Any:
        images = dataset["images"]
        category_ids = [c["id"] for c in dataset["categories"]]
        label = {c: k for k, c in enumerate(category_ids)}
        by_image: dict[int, list[Json]] = {i["id"]: [] for i in images}
        for ann in dataset["annotations"]:
            by_image[ann["image_id"]].append(ann)
        anns = [a for i in images for a in by_image[i["id"]]]

        def segmentation(row: int) -> Any:
            segm = anns[row].get("segmentation")
            return [np.reshape(p, (-1, 2)) for p in segm] if isinstance(segm, list) else segm

        def labels(key: str) -> Callable[[int], np.ndarray]:
            return lambda i: np.array([label[c] for c in images[i].get(key, [])], dtype=np.int64)

        return SimpleNamespace(
            image_ids=np.array([i["id"] for i in images], dtype=np.int64),
            image_sizes=np.array([[i["height"], i["width"]] for i in images], dtype=np.int64).reshape(-1, 2),
            ann_offsets=np.cumsum([0] + [len(by_image[i["id"]]) for i in images]),
            ann_ids=np.array([a["id"] for a in anns], dtype=np.int64),
            ann_labels=np.array([label[a["category_id"]] for a in anns], dtype=np.int64),
            ann_boxes_xywh=np.array([a["bbox"] for a in anns], dtype=np.float64).reshape(-1, 4),
            ann_areas=np.array([a["area"] for a in anns], dtype=np.float64),
            ann_crowd=np.array([a.get("iscrowd", 0) for a in anns], dtype=bool),
            ann_ignore=np.array([a.get("ignore", 0) for a in anns], dtype=bool),
            segmentation=segmentation,
            neg_labels=labels("neg_category_ids"),
            not_exhaustive_labels=labels("not_exhaustive_category_ids"),
            categories=SimpleNamespace(ids=category_ids, names=[c["name"] for c in dataset["categories"]]),
            federated=any("neg_category_ids" in i for i in images),
            content_hash="0" * 64,
        )

    return make


@pytest.fixture(scope="session")
def table_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Json], Any], Any]:
    """Results as they come back from a file."""
    from aegl.metrics import DetectionTable

    folder = tmp_path_factory.mktemp("results")

    def make(results: list[Json], store: Any) -> DetectionTable:
        path = folder / "results.json"
        path.write_text(json.dumps(results))
        return DetectionTable.from_results_json(path, store)

    return make


@pytest.fixture(scope="session")
def official_coco() -> Callable[[Json, list[Json], str], COCOeval]:
    """pycocotools, accumulated and summarised."""

    def judge(dataset: Json, results: list[Json], iou_type: str) -> COCOeval:
        with contextlib.redirect_stdout(io.StringIO()):
            gt = COCO()
            gt.dataset = copy.deepcopy(dataset)
            gt.createIndex()
            judged = COCOeval(gt, gt.loadRes(copy.deepcopy(results)), iou_type)
            judged.evaluate()
            judged.accumulate()
            judged.summarize()
        return judged

    return judge


@pytest.fixture(scope="session")
def official_lvis(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Json, list[Json], str], Any]:
    """The lvis package; it still asks NumPy for the name it dropped in 1.24."""
    from lvis import LVIS, LVISEval, LVISResults

    folder = tmp_path_factory.mktemp("lvis")

    def judge(dataset: Json, results: list[Json], iou_type: str) -> LVISEval:
        path = folder / "gt.json"
        path.write_text(json.dumps(dataset))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(np, "float", float, raising=False)
            gt = LVIS(str(path))
            judged = LVISEval(gt, LVISResults(gt, copy.deepcopy(results)), iou_type)
            judged.run()
        return judged

    return judge
