"""How far an exported file's answers may lie from PyTorch's, by its precision."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

PrecisionName = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class Tolerances:
    """What counts as the same answer.

    Args:
        match_iou: detections of one class that overlap by this are the same one; whether they agree, the others say.
        box: most that a coordinate may differ, pixels of the network input.
        score: most that a score may differ.
        mask: most that a mask probability may differ; of pasted masks, the share of pixels that differ.
        share: of all detections that must agree.
    """

    match_iou: float
    box: float
    score: float
    mask: float
    share: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


TOLERANCES: dict[PrecisionName, Tolerances] = {
    # Far above rounding, far below notice; the rest may be near-ties at a threshold.
    "fp32": Tolerances(match_iou=0.9, box=0.1, score=1e-3, mask=1e-2, share=0.999),
    # Eleven bits in every layer move offsets and scores a little, and swap proposals that were close.
    "fp16": Tolerances(match_iou=0.8, box=1.0, score=0.02, mask=0.1, share=0.95),
    # Eight bits: other proposals survive. The comparison finds broken files; what is lost, the AP says.
    "int8": Tolerances(match_iou=0.5, box=16.0, score=0.3, mask=1.0, share=0.5),
}
