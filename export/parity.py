"""Does the exported file give the same answers? Detections are compared as sets, as near-ties may swap places."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aegl.export.parity_cases import parity_cases
from aegl.metadata import ModelMeta
from aegl.models.boxes import pairwise_iou
from aegl.types import Detections

Detect = Callable[[np.ndarray], Detections]

MATCH_IOU = 0.9
"""Detections of one class that overlap by this are the same one; whether they agree, the tolerances say."""
BOX_TOLERANCE, SCORE_TOLERANCE, MASK_TOLERANCE = 0.1, 1e-3, 1e-2
"""Most that a coordinate (pixels), a score and a mask probability may differ: far above rounding, far below notice."""
REQUIRED_SHARE = 0.999
"""Share of all detections that must agree; the rest may be near-ties at a threshold."""


@dataclass(frozen=True)
class CaseReport:
    """One set of images, run by both.

    Args:
        name: of the case.
        agree: detections that both found alike.
        total: detections of PyTorch or of the file, whichever found more.
        box_error: largest difference of a box coordinate among those that both found, pixels.
        score_error: largest difference of a score among them.
        mask_error: largest difference of a mask probability among them.
        disputed: highest score of a detection that only one found or that they found differently, or None.
    """

    name: str
    agree: int
    total: int
    box_error: float
    score_error: float
    mask_error: float
    disputed: float | None

    def text(self) -> str:
        """One line for people."""
        errors = (
            f"box error {self.box_error:.2g} px, score error {self.score_error:.1g}, mask error {self.mask_error:.1g}"
        )
        others = self.total - self.agree
        rest = "" if self.disputed is None else f"; best of the {others} others scores {self.disputed:.3g}"
        return f"{self.name:<24} {self.agree} of {self.total} agree, {errors}{rest}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values; None where a difference is not a number, which JSON does not know."""
        values = asdict(self)
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


@dataclass(frozen=True)
class ParityReport:
    """All cases."""

    cases: tuple[CaseReport, ...]

    @property
    def agree(self) -> int:
        """Detections that both found alike."""
        return sum(case.agree for case in self.cases)

    @property
    def total(self) -> int:
        """Detections in all."""
        return sum(case.total for case in self.cases)

    @property
    def passed(self) -> bool | None:
        """Whether :data:`REQUIRED_SHARE` of the detections agree; None where there were none, which shows nothing."""
        return self.agree >= REQUIRED_SHARE * self.total if self.total else None

    def headline(self) -> str:
        """The verdict, one line."""
        if self.passed is None:
            return "parity NOT SHOWN: nothing was detected in the test images; export with a lower conf= to compare"
        verdict, advice = ("passed", "") if self.passed else ("FAILED", ": do not use the file before you know why")
        count = f"{self.agree} of {self.total} detections agree between PyTorch and ONNX Runtime"
        return f"parity {verdict}: {count}{advice}"

    def text(self) -> str:
        """The report for people: the verdict and one line per case."""
        return "\n".join([self.headline(), *(f"  {case.text()}" for case in self.cases)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "passed": self.passed,
            "agree": self.agree,
            "total": self.total,
            "cases": [case.to_dict() for case in self.cases],
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
    return ParityReport(tuple(_compare(name, pytorch(x), exported(x)) for name, x in parity_cases(meta, canvas)))


@dataclass(frozen=True)
class _Found:
    """The real detections of one image."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor

    @classmethod
    def of(cls, detections: Detections, image: int) -> _Found:
        count = int(detections.num_detections[image])
        fields = (detections.boxes, detections.scores, detections.labels, detections.masks)
        return cls(*(field[image, :count] for field in fields))


def _compare(name: str, expected: Detections, found: Detections) -> CaseReport:
    agree, total = 0, 0
    errors, disputed = np.zeros(3), [-math.inf]
    for image in range(len(expected.num_detections)):
        a, b = _Found.of(expected, image), _Found.of(found, image)
        rows, columns = _pair(a, b)
        differences = _differences(a, rows, b, columns)
        alike = (differences <= [BOX_TOLERANCE, SCORE_TOLERANCE, MASK_TOLERANCE]).all(1)
        agree += int(alike.sum())
        total += max(len(a.scores), len(b.scores))
        errors = np.maximum(errors, differences.max(axis=0, initial=0))
        for side, agreeing in ((a, rows[alike]), (b, columns[alike])):
            disputed += np.delete(side.scores.numpy(), agreeing).tolist()
    box, score, mask = errors.tolist()
    best = float(np.nanmax(disputed))
    return CaseReport(name, agree, total, box, score, mask, best if math.isfinite(best) else None)


def _differences(a: _Found, rows: np.ndarray, b: _Found, columns: np.ndarray) -> np.ndarray:
    """``[n, 3]`` largest differences of each pair: box, score, mask."""
    pairs = [(a.boxes, b.boxes), (a.scores[:, None], b.scores[:, None]), (a.masks.flatten(1), b.masks.flatten(1))]
    return np.stack([(x[rows] - y[columns]).abs().amax(1).numpy() for x, y in pairs], axis=1)


def _pair(a: _Found, b: _Found) -> tuple[np.ndarray, np.ndarray]:
    """Row of ``a`` and row of ``b`` of every detection that both found, paired by best overlap within the class."""
    overlap = pairwise_iou(a.boxes, b.boxes) * (a.labels[:, None] == b.labels[None, :])
    candidates = (overlap >= MATCH_IOU).nonzero()
    order = torch.argsort(overlap[candidates[:, 0], candidates[:, 1]], descending=True, stable=True)
    pairs: list[tuple[int, int]] = []
    used_a, used_b = set(), set()
    for row, column in candidates[order].tolist():
        if row not in used_a and column not in used_b:
            pairs.append((row, column))
            used_a.add(row)
            used_b.add(column)
    rows, columns = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    return rows, columns
