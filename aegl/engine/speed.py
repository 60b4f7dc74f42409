"""How a model is made to run fast, or in less memory, where it is trained: nothing here changes what it computes."""

from __future__ import annotations

import os
import shutil
from typing import TypeVar

import torch
from torch import nn

from aegl.errors import ConfigError
from aegl.models.mask_rcnn import MaskRCNN

Model = TypeVar("Model", bound=nn.Module)

_COMPILERS = ("g++", "clang++", "c++")


def place(model: Model, device: torch.device, *, alone: bool = True) -> Model:
    """Move a model to its device. Its convolutions keep channels last, as tensor cores and oneDNN want them.

    Args:
        model: a detector.
        device: where to.
        alone: whether one process trains or uses it. Of several, those on CPUs keep the usual layout: their gradients
            come in it, and DDP would copy every one.
    """
    if device.type != "cuda" and not alone:
        return model.to(device)
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def compile_parts(model: MaskRCNN, device: torch.device) -> None:
    """Compile backbone and feature pyramid, in place: most of the work, and of shapes that repeat.

    Names of weights stay as they are. The first steps take a minute or more; a new image size may take some seconds,
    after a few of them sizes are free.

    Raises:
        ConfigError: if PyTorch finds no compiler for the device.
    """
    _require_compiler(device)
    model.backbone.compile()
    model.neck.compile()


def _require_compiler(device: torch.device) -> None:
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise ConfigError("compile=true: PyTorch compiles for CUDA with Triton, which is not installed or too old")
        return
    wanted = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ((wanted,) if wanted else _COMPILERS)):
        named = f"CXX={wanted}" if wanted else ", ".join(_COMPILERS)
        raise ConfigError(f"compile=true: no C++ compiler is there to compile for the CPU ({named}); install one")
