"""Run folders: where a run's files lie and which run is meant when none is named."""

from __future__ import annotations

import itertools
from pathlib import Path

from aegl.errors import CheckpointError, ConfigError, RunError

ARGS_FILE = "args.yaml"
RESULTS_FILE = "results.csv"
GRADIENTS_FILE = "gradients.csv"
TRAINED_FILE = "train.json"
"""What `aegl train --json` prints; there when the run is complete."""
METRICS_FILE = "metrics.json"
PER_CLASS_FILE = "per_class.csv"
CURVES_FILE = "pr_curves.npz"
EXAMPLES_FILE = "examples.json"
PREDICTIONS_FILE = "predictions.json"
SHARDS_FOLDER = "detections"
"""Where detections lie while an evaluation is not finished."""
WEIGHTS_FOLDER = "weights"
LAST_FILE = "last.pt"
PREVIOUS_FILE = "previous.pt"
"""The checkpoint before ``last.pt``."""


def create_run(project: str | Path, name: str | None, *, verb: str, exist_ok: bool) -> Path:
    """Make the folder of a new run and return it.

    Args:
        project: folder of the runs.
        name: the run's name; None numbers them: ``train``, ``train2``, ``train3`` ...
        verb: name of unnamed runs.
        exist_ok: use an existing folder of that name instead of refusing.

    Raises:
        ConfigError: if the named run exists and ``exist_ok`` is false, or no folder can be made there.
    """
    project = Path(project)
    try:
        project.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"project={project}: cannot be made a folder ({error.strerror}); choose another") from error
    if name is not None:
        check_free(project, name, exist_ok=exist_ok)
        return _make(project / name, exist_ok=True)
    for number in itertools.count(1):
        folder = project / (verb if number == 1 else f"{verb}{number}")
        try:
            return _make(folder, exist_ok=False)
        except FileExistsError:
            continue
    raise AssertionError("unreachable: itertools.count does not end")


def forget(run: Path) -> None:
    """Remove what says how far an earlier run in this folder came: the new one must not be resumed from it.

    Raises:
        RunError: if a file cannot be removed.
    """
    weights = run / WEIGHTS_FOLDER
    for file in (run / TRAINED_FILE, weights / LAST_FILE, weights / PREVIOUS_FILE):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{file}: cannot be removed ({error.strerror}); choose another name=") from error


def check_free(project: str | Path, name: str | None, *, exist_ok: bool) -> None:
    """Raise :class:`ConfigError` if a run of this name exists and must not be written into."""
    if name is not None and (Path(project) / name).exists() and not exist_ok:
        raise ConfigError(
            f"name={name}: {Path(project) / name} exists already; choose another name, or give exist_ok=true to write "
            "into it, or resume=true to continue it"
        )


def newest_weights(project: str | Path) -> Path:
    """``best.pt`` of the run under ``project`` that was written to last.

    Raises:
        CheckpointError: if no run there has weights.
    """
    return _newest(Path(project), ["best.pt"], "give weights=, or train a model first")


def newest_run(project: str | Path) -> Path:
    """Folder of the run under ``project`` that wrote a checkpoint last.

    Raises:
        CheckpointError: if no run there has a checkpoint.
    """
    files = [LAST_FILE, PREVIOUS_FILE]
    return _newest(Path(project), files, "give weights= or name= of the run to resume").parent.parent


def run_of(weights: str | Path) -> Path:
    """Folder of the run that a file in its weights folder belongs to.

    Raises:
        CheckpointError: if the file does not lie in a run.
    """
    run = Path(weights).resolve().parent.parent
    if not (run / ARGS_FILE).is_file():
        raise CheckpointError(
            f"weights={weights}: does not lie in a run's weights folder, so there is no run to resume"
        )
    return run


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all. Raises :class:`RunError` if the disk refuses."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """The same for any content."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror})") from error


def _make(folder: Path, *, exist_ok: bool) -> Path:
    try:
        folder.mkdir(parents=exist_ok, exist_ok=exist_ok)
    except FileExistsError:
        if not exist_ok:
            raise
        raise ConfigError(f"{folder}: exists and is no folder; choose another project= or name=") from None
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot make the run's folder ({error.strerror}); choose another project="
        ) from error
    return folder


def _newest(project: Path, files: list[str], remedy: str) -> Path:
    found = [path for file in files for path in project.glob(f"*/{WEIGHTS_FOLDER}/{file}")]
    if not found:
        raise CheckpointError(f"project={project}: no run there has a {WEIGHTS_FOLDER}/{files[0]}; {remedy}")
    return max(found, key=lambda path: path.stat().st_mtime_ns)
