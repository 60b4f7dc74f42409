"""What lower precision costs: AP of a file and of the float32 model, on the same images of the val split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from aegl.data.dataset import DetectionDataset, collate
from aegl.data.preprocess import Preprocess
from aegl.engine.backend import Backend
from aegl.engine.postprocess import to_original
from aegl.engine.validator import require_same_classes
from aegl.export.calibration import evenly
from aegl.metrics import PROTOCOLS, GroundTruth, evaluate
from aegl.metrics.detections import DetectionTableBuilder
from aegl.metrics.report import KINDS

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore
    from aegl.progress import Progress

Figures = dict[str, float | None]
"""``box`` and ``mask`` AP in [0, 1]; None where there is nothing to score."""
_REMEDIES = {
    "fp16": "export without half=true",
    "int8": "calibrate with more images like those it will see (calibration_images=), or export without int8=true",
}
_LARGEST_LOSS = 0.01
"""Of AP, that needs no warning: a point."""


@dataclass(frozen=True)
class Judge:
    """The images on which two models are compared.

    Args:
        store: ground truth of the split.
        split: its name.
        protocol: a key of :data:`aegl.metrics.PROTOCOLS`.
        most: images, evenly spread over the split.
    """

    store: AnnotationStore
    split: str
    protocol: str
    most: int

    def compare(
        self,
        models: dict[str, Backend],
        preprocess: Preprocess,
        *,
        masks: bool,
        progress: Progress,
    ) -> dict[str, Any]:
        """AP of two models, the first of which is the reference.

        Args:
            models: names to models.
            preprocess: of both.
            masks: whether both have masks.
            progress: told of the images.

        Returns:
            ``{"split", "images", "images_of_split", "protocol", <name>: figures, ..., "delta": figures}``.

        Raises:
            DataError: for an image that cannot be read, or if the data's categories are not the models'.
        """
        for backend in models.values():
            require_same_classes(backend.meta, self.store)
        figures = {
            name: self._figures(backend, preprocess, masks=masks, progress=progress) for name, backend in models.items()
        }
        reference, other = figures.values()
        return {
            "split": self.split,
            "images": min(len(self.store), self.most),
            "images_of_split": len(self.store),
            "protocol": self.protocol,
            **figures,
            "delta": {kind: _difference(other[kind], reference[kind]) for kind in reference},
        }

    def _figures(
        self,
        backend: Backend,
        preprocess: Preprocess,
        *,
        masks: bool,
        progress: Progress,
    ) -> Figures:
        meta = backend.meta
        rows = evenly(len(self.store), self.most)
        dataset = DetectionDataset(self.store, preprocess)
        builder = DetectionTableBuilder(with_masks=masks)
        progress.start("AP", len(rows), "image")
        for place, row in enumerate(rows.tolist()):
            batch = collate([dataset[row]], preprocess)
            size, orig_size = batch.sizes[0].tolist(), batch.orig_sizes[0].tolist()
            detections = backend(batch.images.numpy())
            found = to_original(detections, 0, size=size, orig_size=orig_size, conf=meta.conf, max_det=meta.max_det)
            boxes = found.boxes_orig.copy()
            boxes[:, 2:] -= boxes[:, :2]
            counts = [mask["counts"] for mask in found.masks] if masks else None
            builder.append(place, found.labels, found.scores, boxes, counts)
            progress.update(1)
        progress.finish()
        truth, table = ground_truth_of(self.store, rows), builder.build()
        kinds = ("box", "mask") if masks else ("box",)
        scored = {
            kind: evaluate(
                truth,
                table,
                protocol=self.protocol,
                iou_type=KINDS[kind],
                class_band=np.asarray(meta.class_band),
                band_names=meta.band_names,
                max_det=PROTOCOLS[self.protocol].limit_of_model(meta.max_det),
            ).summary["AP"]
            for kind in kinds
        }
        return {"box": None, "mask": None} | scored


def ground_truth_of(store: AnnotationStore, rows: np.ndarray) -> GroundTruth:
    """The ground truth of some images, which become images ``0..len(rows)-1``.

    Args:
        store: of the whole split.
        rows: ``[n]`` int64, rising.
    """
    whole = GroundTruth.from_store(store)
    place = np.full(len(store), -1)
    place[rows] = np.arange(len(rows))
    kept = np.flatnonzero(place[whole.ann_image] >= 0)
    columns = ("ann_ids", "ann_labels", "ann_boxes_xywh", "ann_areas", "ann_crowd", "ann_ignore")
    return replace(
        whole,
        image_ids=whole.image_ids[rows],
        image_sizes=whole.image_sizes[rows],
        ann_image=place[whole.ann_image[kept]],
        negative=_moved(whole.negative, place, whole.num_classes),
        not_exhaustive=_moved(whole.not_exhaustive, place, whole.num_classes),
        segmentation=lambda annotation: store.segmentation(int(kept[annotation])),
        **{name: getattr(whole, name)[kept] for name in columns},
    )


def loses_much(compared: dict[str, Any]) -> bool:
    """Whether box or mask AP is more than a point below that of the reference."""
    return any(value is not None and value < -_LARGEST_LOSS for value in compared["delta"].values())


def ap_text(name: str, compared: dict[str, Any]) -> str:
    """One line for people: AP of the file called ``name``, how much that is beside float32, and if it is too little."""
    parts = []
    for kind, value in compared[name].items():
        if value is not None and compared["delta"][kind] is not None:
            parts.append(f"{kind} AP {100 * value:.2f} ({100 * compared['delta'][kind]:+.2f})")
    images, of_split = compared["images"], compared["images_of_split"]
    which = f"all {images}" if images == of_split else f"{images} of {of_split}"
    figures = ", ".join(parts) or "no AP: these images have nothing to be found"
    text = f"{name} against fp32: {figures}, on {which} images of {compared['split']}"
    return f"{text}. MORE THAN A POINT OF AP IS LOST: {_REMEDIES[name]}" if loses_much(compared) else text


def _moved(keys: np.ndarray, place: np.ndarray, num_classes: int) -> np.ndarray:
    """Sorted ``image * C + label`` of the kept images, counted anew."""
    image, label = keys // num_classes, keys % num_classes
    kept = place[image] >= 0
    return place[image[kept]] * num_classes + label[kept]


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
