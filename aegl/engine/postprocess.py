"""From the padded result of the network, in tensors, to what it says about one original image."""

from __future__ import annotations

from collections.abc import Sequence

from aegl.runtime import postprocess
from aegl.runtime.postprocess import ImageDetections
from aegl.types import Detections


def to_original(
    detections: Detections,
    row: int,
    *,
    size: Sequence[int],
    orig_size: Sequence[int],
    conf: float,
    max_det: int,
) -> ImageDetections:
    """One image's detections in pixels of the original image; see :func:`aegl.runtime.postprocess.to_original`.

    Args:
        detections: of the batch, on the CPU.
        row: the image's row in it.
        size: height and width of the resized image inside the canvas.
        orig_size: height and width of the original image.
        conf: lowest score to keep.
        max_det: most detections to keep.
    """
    count = int(detections.num_detections[row])
    fields = (detections.boxes, detections.scores, detections.labels)
    boxes, scores, labels = (field[row, :count].numpy() for field in fields)
    masks = None if detections.masks is None else detections.masks[row, :count].numpy()
    return postprocess.to_original(
        boxes, scores, labels, masks, size=size, orig_size=orig_size, conf=conf, max_det=max_det
    )
