"""Does the exported file give the same answers? Detections are compared as sets, as near-ties may swap places."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from aegl.metadata import ModelMeta
from aegl.models.boxes import pairwise_iou
from aegl.types import Detections

Detect = Callable[[np.ndarray], Detections]

MATCH_IOU = 0.9
"""Detections of one class that overlap by this are the same one."""
REQUIRED_SHARE = 0.999
"""Share of all detections that must agree; the rest may be near-ties at a threshold."""
_SEED = 0


@dataclass(frozen=True)
class CaseReport:
    """One set of images, run by both.

    Args:
        name: of the case.
        agree: detections that both found.
        total: detections of PyTorch or of the file, whichever found more.
        box_error: largest difference of a box coordinate among the agreeing, pixels.
        score_error: largest difference of a score among them.
        mask_error: largest difference of a mask probability among them.
        unmatched: highest score of a detection that only one found, or None.
    """

    name: str
    agree: int
    total: int
    box_error: float
    score_error: float
    mask_error: float
    unmatched: float | None

    def text(self) -> str:
        """One line for people."""
        errors = (
            f"box error {self.box_error:.2g} px, score error {self.score_error:.1g}, mask error {self.mask_error:.1g}"
        )
        rest = (
            ""
            if self.unmatched is None
            else f"; best of the {self.total - self.agree} others scores {self.unmatched:.3g}"
        )
        return f"{self.name:<24} {self.agree} of {self.total} agree, {errors}{rest}"


@dataclass(frozen=True)
class ParityReport:
    """All cases."""

    cases: tuple[CaseReport, ...]

    @property
    def agree(self) -> int:
        """Detections that both found."""
        return sum(case.agree for case in self.cases)

    @property
    def total(self) -> int:
        """Detections in all."""
        return sum(case.total for case in self.cases)

    @property
    def passed(self) -> bool:
        """Whether :data:`REQUIRED_SHARE` of the detections agree."""
        return self.agree >= REQUIRED_SHARE * self.total

    def text(self) -> str:
        """The report for people."""
        verdict = "passed" if self.passed else "FAILED"
        lines = [f"parity {verdict}: {self.agree} of {self.total} detections agree between PyTorch and ONNX Runtime"]
        return "\n".join([*lines, *(f"  {case.text()}" for case in self.cases)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "passed": self.passed,
            "agree": self.agree,
            "total": self.total,
            "cases": [asdict(case) for case in self.cases],
            "text": self.text(),
        }


def check_parity(
    pytorch: Detect, exported: Detect, meta: ModelMeta, *, canvas: tuple[int, int] | None = None
) -> ParityReport:
    """Run both on a blank, a small, a large and a crowded image, at batch 1 and 3, and blank again after full.

    Args:
        pytorch: the model in PyTorch.
        exported: the file.
        meta: the model's metadata.
        canvas: the only size the file takes, or None.
    """
    return ParityReport(tuple(_compare(name, pytorch(x), exported(x)) for name, x in _cases(meta, canvas)))


def _cases(meta: ModelMeta, canvas: tuple[int, int] | None) -> Iterator[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(_SEED)
    stride = meta.stride
    side = -(-meta.imgsz // stride) * stride
    usual = canvas or (side, side)
    small = canvas or (stride, stride)
    large = canvas or (side, -(-meta.max_size // stride) * stride + stride)
    wide = canvas or (stride, 8 * stride)
    blank, full = _blank(meta, usual), _scene(rng, usual, 12)
    yield "blank", blank[None]
    yield "full", full[None]
    yield "blank after full", blank[None]
    yield "small", _scene(rng, small, 2)[None]
    yield "large", _scene(rng, large, 20)[None]
    yield "very wide", _scene(rng, wide, 5)[None]
    yield "crowded", _scene(rng, usual, 150)[None]
    yield "batch of 3", np.stack([_scene(rng, usual, 6), blank, _scene(rng, usual, 60)])


def _blank(meta: ModelMeta, size: tuple[int, int]) -> np.ndarray:
    return np.broadcast_to(np.asarray(meta.pad_value, dtype=np.uint8)[:, None, None], (3, *size)).copy()


def _scene(rng: np.random.Generator, size: tuple[int, int], objects: int) -> np.ndarray:
    """``[3, H, W]`` uint8: noise with textured rectangles of many sizes."""
    height, width = size
    image = rng.integers(90, 160, (3, height, width)).astype(np.uint8)
    for _ in range(objects):
        h, w = (rng.uniform(0.05, 0.5, 2) * min(height, width)).astype(int) + 4
        y, x = rng.integers(0, max(height - h, 1)), rng.integers(0, max(width - w, 1))
        colour = rng.integers(0, 256, (3, 1, 1))
        stripes = (np.arange(w) // rng.integers(2, 9) % 2) * rng.integers(0, 90)
        image[:, y : y + h, x : x + w] = np.clip(colour + stripes, 0, 255)[..., : min(w, width - x)]
    return image


def _compare(name: str, expected: Detections, found: Detections) -> CaseReport:
    agree, total = 0, 0
    errors, unmatched = np.zeros(3), []
    for image in range(len(expected.num_detections)):
        pairs, left_a, left_b = _pair(_of_image(expected, image), _of_image(found, image))
        agree += len(pairs)
        total += len(pairs) + max(len(left_a), len(left_b))
        unmatched += [*expected.scores[image][left_a].tolist(), *found.scores[image][left_b].tolist()]
        for a, b in pairs:
            differences = (
                (expected.boxes[image, a] - found.boxes[image, b]).abs().max(),
                (expected.scores[image, a] - found.scores[image, b]).abs(),
                (expected.masks[image, a] - found.masks[image, b]).abs().max(),
            )
            errors = np.maximum(errors, [float(d) for d in differences])
    box, score, mask = errors.tolist()
    return CaseReport(name, agree, total, box, score, mask, max(unmatched, default=None))


def _of_image(detections: Detections, image: int) -> tuple[torch.Tensor, torch.Tensor]:
    count = int(detections.num_detections[image])
    return detections.boxes[image, :count], detections.labels[image, :count]


def _pair(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """Pairs of the same class, best overlap first, and what is left of both."""
    overlap = pairwise_iou(a[0], b[0]) * (a[1][:, None] == b[1][None, :])
    pairs: list[tuple[int, int]] = []
    used_a, used_b = set(), set()
    candidates = (overlap >= MATCH_IOU).nonzero()
    order = torch.argsort(overlap[candidates[:, 0], candidates[:, 1]], descending=True, stable=True)
    for row, column in candidates[order].tolist():
        if row not in used_a and column not in used_b:
            pairs.append((row, column))
            used_a.add(row)
            used_b.add(column)
    return pairs, sorted(set(range(len(a[0]))) - used_a), sorted(set(range(len(b[0]))) - used_b)
