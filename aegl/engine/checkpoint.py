"""Checkpoints: everything a run needs to go on as if it had never stopped, and all a model needs to be used."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import shutil
import zipfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aegl._version import __version__
from aegl.engine.rng import RngState
from aegl.engine.runs import WEIGHTS_FOLDER
from aegl.engine.seal import seal, seal_holds
from aegl.errors import CheckpointError, RunError
from aegl.longtail.statistics import ClassStatistics
from aegl.metadata import ModelMeta

FORMAT = "aegl-checkpoint"
FORMAT_VERSION = 2
"""2: the file ends in a checksum (:mod:`aegl.engine.seal`). Files of version 1 are read without one."""

_TRAINING_STATE = ("box_head.memory.", "box_head.auxiliary.", "box_head.loss.memory.", "box_head.gradients.")


class DamagedCheckpointError(CheckpointError):
    """A file that is no longer what was written: cut short, or with a bit flipped."""


@dataclass(frozen=True)
class TrainingState:
    """What only the continuation of training needs.

    Args:
        optimizer: state of the optimiser.
        scaler: state of the gradient scaler; empty unless fp16.
        ema: averaged weights and their counter (:class:`aegl.engine.ema.ModelEma`), or None.
        iteration: finished steps.
        consumed_batches: batches that every process has taken from its loader, over all epochs.
        rng: state of the random generators of every process, by rank.
        validated: iteration of the last evaluation, -1 for none.
        best: the best fitness so far, None before the first evaluation.
    """

    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    ema: dict[str, Any] | None
    iteration: int
    consumed_batches: int
    rng: list[RngState]
    validated: int
    best: float | None


@dataclass(frozen=True)
class Checkpoint:
    """The content of a ``.pt`` file.

    Args:
        model: weights and buffers (a loss's own among them) as they are trained.
        meta: classes, preprocessing and operating point.
        statistics: class counts of the training set.
        config: the run's configuration as plain values.
        iteration: finished steps.
        metrics: summary of the last evaluation, empty before the first.
        training: what training needs to go on; None in files that are only for use.
        aegl_version: version that wrote the file.
    """

    model: dict[str, Tensor]
    meta: ModelMeta
    statistics: ClassStatistics
    config: dict[str, Any]
    iteration: int
    metrics: dict[str, Any]
    training: TrainingState | None = None
    aegl_version: str = __version__

    def inference_weights(self) -> dict[str, Tensor]:
        """The weights to evaluate and export: the averaged ones where there are any."""
        ema = self.training.ema if self.training else None
        return ema["weights"] if ema else self.model

    def for_inference(self) -> Checkpoint:
        """Without the training state, and with :meth:`inference_weights` as the model."""
        used = {name: tensor for name, tensor in self.inference_weights().items() if not is_training_state(name)}
        return replace(self, model=used, training=None)


def is_training_state(name: str) -> bool:
    """Whether a tensor of the model, by name, is needed to train on but not to use the model: remembered features."""
    return name.startswith(_TRAINING_STATE)


def snapshot(value: Any) -> Any:
    """A copy of nested containers whose tensors are on the CPU and share nothing with those of ``value``."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        copied = copy.copy(value)  # a state_dict carries the versions of its modules as an attribute
        copied.update({key: snapshot(item) for key, item in value.items()})
        return copied
    if isinstance(value, list | tuple):
        return type(value)(snapshot(item) for item in value)
    return value


def save_checkpoint(checkpoint: Checkpoint, path: Path, *, former: Path | None = None) -> None:
    """Write a checkpoint so that ``path`` holds either the old file or the whole new one, whatever happens.

    Args:
        checkpoint: what to write.
        path: the file.
        former: where the old file is kept; it replaces what is there, once the new one is safe.

    Raises:
        RunError: if the file cannot be written (full disk, no permission); an older file at ``path`` stays as it was.
    """
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **{f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)},
        "meta": checkpoint.meta.to_dict(),
        "statistics": checkpoint.statistics.to_dict(),
        "training": None if checkpoint.training is None else _shallow(checkpoint.training),
    }
    temporary = path.with_name(f".{path.name}.tmp")  # one name: what a kill leaves of it, the next write replaces
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w+b") as file:
            torch.save(content, file)
            seal(file)
            file.flush()
            os.fsync(file.fileno())
        if former is not None and path.exists():
            _keep(path, former)
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink()
        kept = "; the older file there is untouched" if os.access(path, os.F_OK) else ""
        reason = (getattr(error, "strerror", None) or str(error)).splitlines()[0]
        raise RunError(f"{path}: cannot write the checkpoint ({reason}; {_free(path)}){kept}") from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, tensors on the CPU. Nothing in the file is executed.

    Raises:
        DamagedCheckpointError: if the file is not what was written.
        CheckpointError: if it is missing, of another program or of a newer aegl.
    """
    path = Path(path)
    if not path.is_file():
        best = path / WEIGHTS_FOLDER / "best.pt"
        where = f"is the folder of a run, whose weights are in {best}" if best.is_file() else "no such file"
        raise CheckpointError(f"{path}: {where}; give the path of a checkpoint written by `aegl train`")
    try:
        sealed = seal_holds(path)
        if sealed is False:
            raise DamagedCheckpointError(
                f"{path}: its checksum does not fit what it holds: the file was damaged after it was written; use "
                "another checkpoint of the run (previous.pt is the one before last.pt), or copy it again"
            )
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, CheckpointError):
        raise
    except Exception as error:  # torch raises a dozen kinds, from KeyError to UnpicklingError, for damaged files
        raise DamagedCheckpointError(
            f"{path}: not a readable PyTorch checkpoint ({_reason(path, error)}): the file is damaged, cut short or of "
            "another kind; use another checkpoint of the run, or copy it again"
        ) from error
    _check_kind(path, content)
    if sealed is None and content["format_version"] > 1:
        raise DamagedCheckpointError(
            f"{path}: its checksum is missing: the file was cut short, or written by another program; use another "
            "checkpoint of the run, or copy it again"
        )
    return _parse(path, content)


def _check_kind(path: Path, content: Any) -> None:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: a PyTorch file, but no checkpoint of aegl; weights of a backbone go to backbone_weights="
        )
    version = content.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format {version}, written by aegl {content.get('aegl_version')}; this is aegl {__version__}, "
            f"which reads formats up to {FORMAT_VERSION}: update aegl"
        )


def _parse(path: Path, content: dict[str, Any]) -> Checkpoint:
    missing = [f.name for f in fields(Checkpoint) if f.name not in content]
    if missing:
        raise CheckpointError(f"{path}: the checkpoint lacks {', '.join(missing)}: it was not written by `aegl train`")
    values = {f.name: content[f.name] for f in fields(Checkpoint)}
    values["meta"] = ModelMeta.from_dict(content["meta"])
    values["statistics"] = ClassStatistics.from_dict(content["statistics"])
    if content["training"] is not None:
        values["training"] = TrainingState(**content["training"])
    return Checkpoint(**values)


def _shallow(state: TrainingState) -> dict[str, Any]:
    """Fields by name; ``dataclasses.asdict`` would copy every tensor."""
    return {f.name: getattr(state, f.name) for f in fields(state)}


def _reason(path: Path, error: Exception) -> str:
    """Why torch could not read a file; its own words are about its internals."""
    if not zipfile.is_zipfile(path):
        return "it is not in PyTorch's format, or not to its end"
    if isinstance(error, pickle.UnpicklingError):
        return "it holds objects that are no weights"
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__


def _keep(path: Path, former: Path) -> None:
    """Give a file a second name, so that neither is missing at any moment; where there are no links, its only name."""
    link = former.with_name(f".{former.name}.tmp")
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
    except OSError:
        link = path
    link.replace(former)


def _free(path: Path) -> str:
    """Space left where a file was to be written."""
    folder = next(folder for folder in path.absolute().parents if os.access(folder, os.F_OK))
    return f"{shutil.disk_usage(folder).free / 2**20:,.0f} MiB free"


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where the system can (Windows cannot open folders)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
