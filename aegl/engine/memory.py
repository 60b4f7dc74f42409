"""Running out of memory: found out whatever raised it, and told with what was being done and what to change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import torch

from aegl.engine.plan import TrainPlan
from aegl.errors import RunError
from aegl.types import Batch

_SAYS_SO = re.compile(
    r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED|Failed to allocate memory", re.IGNORECASE
)
"""Of CUDA, PyTorch's allocator on the CPU (Linux, Windows), cuBLAS and cuDNN, and ONNX Runtime."""

INFERENCE_REMEDIES = (
    "imgsz, max_size: smaller images",
    "max_det, nms_candidates: fewer detections to keep and to choose from",
    "device=cpu: the memory of the machine instead of the GPU's; slower",
)
"""Keys that make inference need less memory, those of the largest effect first."""

EXPORT_REMEDIES = (
    "parity=false: no comparison with PyTorch, which needs both models at once",
    "imgsz, max_size: smaller images to trace and to compare with",
    "calibration_count: fewer images for int8",
    "a machine with more memory: exporting needs no GPU",
)
"""The same for an export."""


class _OutOfMemoryToldError(RunError):
    """Said already, by who knows best what was being done."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory could not be had, on a GPU or on the CPU.

    PyTorch on the CPU, cuBLAS and cuDNN raise a plain ``RuntimeError``, ONNX Runtime exceptions of its own. Of these
    the text is looked at, also where they are the cause of one of our own.
    """
    if isinstance(error, RunError) and error.__cause__ is not None:
        return is_out_of_memory(error.__cause__)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    is_from_runtime = type(error).__module__.startswith("onnxruntime")
    return (isinstance(error, RuntimeError) or is_from_runtime) and _SAYS_SO.search(str(error)) is not None


@contextmanager
def out_of_memory_told(
    doing: Callable[[], str], remedies: Sequence[str], *, last: Callable[[], str] = str
) -> Iterator[None]:
    """Turn an exception that means lack of memory into one message; all others pass.

    Where this is nested, the innermost speaks.

    Args:
        doing: gives what is done inside, with sizes; called only if it fails.
        remedies: what to change, that of the largest effect first.
        last: gives a closing line, e.g. what is saved; called only if it fails.

    Raises:
        RunError: if memory runs out inside.
    """
    try:
        yield
    except _OutOfMemoryToldError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        lines = [f"out of memory: {doing()} ({_first_sentence(error)})"]
        lines += ["To need less, in order of effect:", *(f"  {remedy}" for remedy in remedies)]
        raise _OutOfMemoryToldError("\n".join(line for line in [*lines, last()] if line)) from error


def _describe_batches(batches: Sequence[Batch]) -> str:
    """Sizes of a step's largest pass in words: images, their canvas, objects in it and in the fullest image."""
    largest = max(batches, key=lambda batch: batch.images.numel())
    count, _, height, width = largest.images.shape
    text = f"{count} image{'s' if count > 1 else ''} of {height}x{width} pixels"
    if largest.targets is None or not len(largest.targets.num_objects):
        return text
    objects = largest.targets.num_objects
    return f"{text} with {int(objects.sum())} objects, {int(objects.max())} in the fullest image"


def describe_images(images: np.ndarray) -> str:
    """``[B, 3, H, W]`` images of a call of a model, in words."""
    count, _, height, width = images.shape
    return f"detecting in {count} image{'s' if count > 1 else ''} of {height}x{width} pixels"


def training_memory(
    where: str, batches: Sequence[Batch], plan: TrainPlan, last: Path, settle: Callable[[], object]
) -> AbstractContextManager[None]:
    """:func:`out_of_memory_told` around a step of training.

    Args:
        where: names the step.
        batches: of the step, in this process.
        plan: says how many images a step has, and in how many passes.
        last: the checkpoint to go on from, where there is one.
        settle: waits for the checkpoint that is being written.
    """

    def kept() -> str:
        settle()
        return f"{last} is kept: start a new run from it with weights={last}" if last.exists() else ""

    return out_of_memory_told(
        lambda: f"{where}, {_describe_batches(batches)}; batch={plan.batch}, accumulate={plan.accumulate}",
        _training_remedies(plan, len(batches[0].images)),
        last=kept,
    )


def _training_remedies(plan: TrainPlan, images: int) -> tuple[str, ...]:
    half = max(1, plan.batch // 2)
    fewer = (
        f"batch={half}, or batch=auto: fewer images in a step; the learning rate that fits changes with it",
        f"accumulate={2 * plan.accumulate}: the same batch in passes of half as many images; slower, the same result",
    )
    return (
        *(fewer if images > 1 else ()),
        "amp=bf16: activations of half the size",
        "checkpoint_activations=true: the backbone's activations are computed twice instead of kept; slower",
        "train_imgsz, max_size: smaller images",
        "roi.batch_per_image: fewer regions for the box and mask heads",
    )


def _first_sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return re.split(r"(?<=[a-z.])\. ", text)[0][:200].rstrip(".")
