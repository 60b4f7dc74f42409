"""Does the exported file give the same answers? Detections are compared as sets, as near-ties may swap places."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aegl.data.run_lengths import decode
from aegl.export.graph_forms import MaskForm
from aegl.export.parity_cases import is_blank, parity_cases
from aegl.export.tolerances import TOLERANCES, Tolerances
from aegl.metadata import ModelMeta
from aegl.models.boxes import pairwise_iou
from aegl.runtime.masks import paste_and_encode
from aegl.types import Detections

Detect = Callable[[np.ndarray], Detections]


_NEAR_TIES = 4
"""Disputed detections that are forgiven where all of them score below :data:`_SURE`."""
_SURE = 0.05
"""Score from which the detections of a blank image are compared; below it, only that there is an answer."""


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
    tolerances: Tolerances = TOLERANCES["fp32"]

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
        """Whether enough of the detections agree; None where there were none, which shows nothing.

        A network that is hardly trained finds places that it can barely tell apart, and one near-tie decided the other
        way makes a detection or two of other places: so few are forgiven, if none of them is one to act upon.
        """
        if not self.total:
            return None
        others = self.total - self.agree
        best = max((case.disputed or 0.0 for case in self.cases), default=0.0)
        return others <= (1 - self.tolerances.share) * self.total or (others <= _NEAR_TIES and best < _SURE)

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
            "tolerances": self.tolerances.to_dict(),
            "cases": [case.to_dict() for case in self.cases],
            "text": self.text(),
        }


def check_parity(
    pytorch: Detect,
    exported: Detect,
    meta: ModelMeta,
    *,
    canvas: tuple[int, int] | None = None,
    masks: MaskForm = "roi",
    tolerances: Tolerances = TOLERANCES["fp32"],
    cases: Iterable[tuple[str, np.ndarray]] | None = None,
) -> ParityReport:
    """Run both on a blank, a small, a large and a crowded image, at batch 1 and 3, and blank again after full.

    Args:
        pytorch: the model in PyTorch.
        exported: the file.
        meta: the model's metadata.
        canvas: the only size the file takes, or None.
        masks: the form of the file's masks.
        tolerances: what counts as the same.
        cases: other images than these, as names and ``[B, 3, H, W]`` uint8, of sizes that the file takes.
    """
    compared = [
        _compare(name, with_masks_as(masks, pytorch(images), images), exported(images), tolerances, is_blank(images))
        for name, images in (parity_cases(meta, canvas) if cases is None else cases)
    ]
    return ParityReport(tuple(compared), tolerances)


def with_masks_as(form: MaskForm, detections: Detections, images: np.ndarray) -> Detections:
    """PyTorch's detections with masks as a file of that form has them."""
    if form == "roi" or detections.masks is None:
        return detections
    if form == "none":
        return replace(detections, masks=None)
    height, width = images.shape[2:]
    pasted = torch.zeros(*detections.scores.shape, height, width, dtype=torch.bool)
    for image, count in enumerate(detections.num_detections.tolist()):
        boxes, masks = detections.boxes[image, :count].numpy(), detections.masks[image, :count].numpy()
        for row, mask in enumerate(paste_and_encode(masks, boxes, height, width)):
            pasted[image, row] = torch.from_numpy(decode(mask))
    return replace(detections, masks=pasted)


@dataclass(frozen=True)
class _Found:
    """The real detections of one image."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None

    @classmethod
    def of(cls, detections: Detections, image: int, lowest: float) -> _Found:
        real = detections.scores[image, : int(detections.num_detections[image])]
        count = int((real >= lowest).sum())
        boxes, scores, labels = (x[image, :count] for x in (detections.boxes, detections.scores, detections.labels))
        return cls(boxes, scores, labels, None if detections.masks is None else detections.masks[image, :count])


def _compare(
    name: str, expected: Detections, found: Detections, tolerances: Tolerances, blank: np.ndarray
) -> CaseReport:
    agree, total = 0, 0
    errors, disputed = np.zeros(3), [-math.inf]
    for image in range(len(expected.num_detections)):
        # Where there is nothing to see, one place is like another: the last bit of their scores decides which of the
        # proposals survives, and a network that is hardly trained makes detections of them.
        lowest = _SURE if blank[image] else 0.0
        a, b = _Found.of(expected, image, lowest), _Found.of(found, image, lowest)
        rows, columns = _pair(a, b, tolerances.match_iou)
        differences = _differences(a, rows, b, columns)
        alike = (differences <= [tolerances.box, tolerances.score, tolerances.mask]).all(1)
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
    pairs = [(a.boxes, b.boxes), (a.scores[:, None], b.scores[:, None])]
    columns_of_two = [(x[rows] - y[columns]).abs().amax(1) for x, y in pairs]
    masks = torch.zeros(len(rows))
    if a.masks is not None and b.masks is not None:
        masks = _mask_differences(a.masks[rows], b.masks[columns])
    return torch.stack([*columns_of_two, masks], dim=1).numpy()


def _mask_differences(a: Tensor, b: Tensor) -> Tensor:
    """``[n]`` float32: largest difference of probabilities; of pasted masks the share of pixels that differ.

    One pixel is forgiven: it may lie at the threshold, and masks may be small.
    """
    if a.dtype != torch.bool:
        return (a - b).flatten(1).abs().amax(1)
    wrong = (a ^ b).flatten(1).sum(1) - 1
    return wrong.clamp(min=0) / (a | b).flatten(1).sum(1).clamp(min=1)


def _pair(a: _Found, b: _Found, match_iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Row of ``a`` and row of ``b`` of every detection that both found, paired by best overlap within the class."""
    overlap = pairwise_iou(a.boxes, b.boxes) * (a.labels[:, None] == b.labels[None, :])
    candidates = (overlap >= match_iou).nonzero()
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
