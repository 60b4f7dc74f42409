"""The official packages themselves, for whoever must quote them: lvis 0.5.3 and pycocotools.

They hold every detection and annotation as a dictionary and need gigabytes at the size of LVIS; aegl's own figures do
not come from here. What they say is compared with aegl's.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from aegl.errors import ConfigError, DataError
from aegl.metrics.detections import DetectionTable
from aegl.metrics.result import EvalResult

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore

PACKAGES = {"lvis": "lvis", "coco": "pycocotools"}
"""The package that defines a protocol."""
BYTES_PER_DETECTION = 4_000
"""Memory that the packages take for a detection, measured."""
_COCO_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl")
_LVIS_BANDS = ("APr", "APc", "APf")
_COCO_MAX_DETS = (1, 10, 100)


@dataclass(frozen=True)
class Official:
    """What an official package says.

    Args:
        package: its name and version.
        figures: in [0, 1] or None, named as in :class:`EvalResult`.
        precision: ``[T, R, C, A]`` float64, classes in the order of the store.
    """

    package: str
    figures: dict[str, float | None]
    precision: np.ndarray

    def largest_difference(self, ours: EvalResult) -> float:
        """To aegl's figures and to every point of its precision curves; 1 where only one of them has a figure."""
        figures = [_difference(value, ours.summary[name]) for name, value in self.figures.items()]
        return float(max([np.abs(self.precision - ours.precision).max(initial=0.0), *figures]))


def _difference(a: float | None, b: float | None) -> float:
    if a is None or b is None:
        return float((a is None) != (b is None))
    return abs(a - b)


def require_official(protocol: str, *, boundary: bool = False) -> None:
    """Raise :class:`ConfigError` if no official package has the protocol, or the overlap of boundaries."""
    packages = " and ".join(f"{package} (protocol={name})" for name, package in PACKAGES.items())
    if protocol not in PACKAGES:
        raise ConfigError(
            f"scorer=official, protocol={protocol}: no official package has this protocol, only {packages}; leave out "
            "scorer=official"
        )
    if boundary:
        raise ConfigError(f"scorer=official, boundary=true: {packages} know no boundaries; leave out one of the two")


def run_official(
    store: AnnotationStore,
    table: DetectionTable,
    ours: EvalResult,
    *,
    class_band: np.ndarray,
    band_names: Sequence[str],
) -> Official:
    """Score with the official package what ``ours`` was scored from.

    Its figures of bands are left out where its bands, which are the file's ``frequency`` fields, are others.

    Raises:
        ConfigError: if no package has the protocol, or not with this number of detections.
        DataError: if the package cannot score these files.
    """
    require_official(ours.protocol, boundary=ours.iou_type == "boundary")
    package = PACKAGES[ours.protocol]
    if not store.source.is_file():
        raise DataError(f"{store.source}: no such annotation file; scorer=official has {package} read it")
    if not len(table):
        raise DataError(f"scorer=official: there are no detections, and {package} cannot score none")
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        table.to_results_json(results, store)
        try:
            run = _run_lvis if package == "lvis" else _run_coco
            figures, precision = run(str(store.source), str(results), ours.iou_type, ours.max_dets)
        except (LookupError, ValueError, TypeError, AssertionError) as error:
            raise DataError(
                f"{store.source}: the {package} package cannot score with this file ({type(error).__name__}: {error}); "
                f"aegl can: leave out scorer=official"
            ) from error
    if store.categories.frequency != tuple(band_names[band] for band in class_band):
        figures = {name: value for name, value in figures.items() if name not in _LVIS_BANDS}
    known = {name: None if value <= -1 else float(value) for name, value in figures.items()}
    return Official(f"{package} {version(package)}", known, precision)


def _run_lvis(
    annotations: str, results: str, iou_type: str, max_dets: tuple[int, ...]
) -> tuple[dict[str, float], np.ndarray]:
    with _lvis_on_current_numpy():
        from lvis import LVIS, LVISEval, LVISResults

        gt = LVIS(annotations)
        judge = LVISEval(gt, LVISResults(gt, results, max_dets=max_dets[-1]), iou_type)
        judge.run()
    return {name.split("@")[0]: value for name, value in judge.results.items()}, judge.eval["precision"]


def _run_coco(
    annotations: str, results: str, iou_type: str, max_dets: tuple[int, ...]
) -> tuple[dict[str, float], np.ndarray]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if max_dets != _COCO_MAX_DETS:
        raise ConfigError(f"scorer=official, max_det={max_dets[-1]}: pycocotools summarises {_COCO_MAX_DETS[-1]} only")
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(annotations)
        for annotation in gt.dataset["annotations"]:
            annotation.setdefault("iscrowd", 0)  # the package insists on it, many files lack it
        judge = COCOeval(gt, gt.loadRes(results), iou_type)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip(_COCO_FIGURES, judge.stats, strict=True)), judge.eval["precision"][..., -1]


class _NumpyWithFloat:
    """NumPy as the lvis package knows it: with the alias ``np.float``, which NumPy 1.24 removed."""

    float = float

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


@contextlib.contextmanager
def _lvis_on_current_numpy() -> Iterator[None]:
    """Lend the lvis package the name it misses; NumPy itself stays as it is."""
    module = _import_lvis_eval()
    logger = logging.getLogger("lvis")
    level = logger.level
    vars(module)["np"] = _NumpyWithFloat()
    logger.setLevel(logging.ERROR)  # it warns of every list of results that it is given
    try:
        yield
    finally:
        vars(module)["np"] = np
        logger.setLevel(level)


def _import_lvis_eval() -> ModuleType:
    """Without the handler that the package gives to the root logger when it is imported."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    try:
        return importlib.import_module("lvis.eval")
    except ImportError as error:
        raise ConfigError(f"scorer=official: the lvis package cannot be imported ({error})") from error
    finally:
        root.handlers[:] = handlers
