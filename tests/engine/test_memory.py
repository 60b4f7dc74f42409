"""Running out of memory ends in one message that says what to change."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aegl.engine.backend import TorchBackend
from aegl.engine.checkpoint import load_checkpoint
from aegl.engine.memory import is_out_of_memory, out_of_memory_told
from aegl.errors import DataError, RunError

OF_THE_CPU = (
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."
)
CUDA = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB."

ERRORS = [
    torch.OutOfMemoryError(CUDA),
    RuntimeError(OF_THE_CPU),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


def failing(error: Exception) -> Any:
    def fail(*_: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_lack_of_memory_is_known_by_its_type_or_its_text(error: Exception) -> None:
    assert is_out_of_memory(error)
    ours = RunError("ONNX Runtime failed")
    ours.__cause__ = error
    assert is_out_of_memory(ours)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape [2, 3] is invalid"), RunError("full disk"), ValueError("out of memory")]
)
def test_other_errors_pass(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error), match=r"shape|full|out of memory$"), out_of_memory_told(str, ()):
        raise error


def test_the_innermost_speaks() -> None:
    with (
        pytest.raises(RunError, match=r"^out of memory: inner \(MemoryError\)"),
        out_of_memory_told(lambda: "outer", ("b",)),
        out_of_memory_told(lambda: "inner", ("a",)),
    ):
        raise MemoryError


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_training_names_the_batch_and_the_keys(toy: ModuleType, tmp_path: Path, error: Exception) -> None:
    trainer = toy.build(tmp_path, checkpoint_every=4)
    trainer._stepper.model.register_forward_pre_hook(lambda *_: failing(error)() if trainer.iteration == 5 else None)
    with pytest.raises(RunError) as caught:
        trainer.run()
    message = str(caught.value)
    assert message.startswith(
        "out of memory: iteration 6, 4 images of 2x2 pixels with 4 objects, 1 in the fullest image; batch=8, acc"
    )
    keys = ("batch=4", "accumulate=4", "amp=bf16", "checkpoint_activations=true", "train_imgsz", "roi.batch_per_image")
    places = [message.index(key, message.index("in order of effect")) for key in keys]
    assert places == sorted(places)
    assert str(tmp_path / "last.pt") in message
    assert load_checkpoint(tmp_path / "last.pt").iteration == 4


def test_before_the_first_checkpoint_none_is_promised(toy: ModuleType, tmp_path: Path) -> None:
    trainer = toy.build(tmp_path)
    trainer._stepper.model.register_forward_pre_hook(failing(MemoryError()))
    with pytest.raises(RunError) as caught:
        trainer.run()
    assert "last.pt" not in str(caught.value)


def test_a_single_image_is_not_told_to_be_halved(toy: ModuleType, tmp_path: Path) -> None:
    loader = lambda consumed: toy.batches(consumed, images=1, world=toy.World())  # noqa: E731
    trainer = toy.build(tmp_path, open_loader=loader)
    trainer._stepper.model.register_forward_pre_hook(failing(MemoryError()))
    with pytest.raises(RunError, match="1 image of 2x2") as caught:
        trainer.run()
    assert "accumulate=4" not in str(caught.value)


def test_inference_names_the_images(toy: ModuleType) -> None:
    class Full(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError(CUDA)

    backend = TorchBackend(Full(), toy.META)
    with pytest.raises(RunError, match=r"detecting in 2 images of 64x96 pixels \(CUDA out of memory\)") as caught:
        backend(np.zeros((2, 3, 64, 96), dtype=np.uint8))
    assert "imgsz, max_size" in str(caught.value)


def test_an_exported_file_names_them_too(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from aegl.export import backend as module

    class FullRuntime:
        meta = config = canvas = None

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def run(self, images: np.ndarray) -> None:
            raise RunError("ONNX Runtime failed") from RuntimeError("bfc_arena.cc: Failed to allocate memory for ...")

    monkeypatch.setattr(module, "Runtime", FullRuntime)
    with pytest.raises(RunError, match="out of memory: detecting in 1 image of 32x32 pixels"):
        module.OnnxBackend(Path("any.onnx"))(np.zeros((1, 3, 32, 32), dtype=np.uint8))


def test_other_errors_of_a_model_pass(toy: ModuleType) -> None:
    class Wrong(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise DataError("not mine")

    with pytest.raises(DataError, match=r"^not mine$"):
        TorchBackend(Wrong(), toy.META)(np.zeros((1, 3, 32, 32), dtype=np.uint8))
