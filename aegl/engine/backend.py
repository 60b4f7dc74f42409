"""What runs a trained model for the validator and the predictor, whatever file it came from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import nn

from aegl.engine.memory import INFERENCE_REMEDIES, describe_images, out_of_memory_told
from aegl.engine.speed import place
from aegl.metadata import ModelMeta
from aegl.types import Detections


class Backend(Protocol):
    """A trained model behind plain arrays."""

    @property
    def meta(self) -> ModelMeta:
        """Classes, preprocessing and operating point."""
        ...

    @property
    def canvas(self) -> tuple[int, int] | None:
        """Height and width that images must not exceed, or None where they may have any size."""
        ...

    def __call__(self, images: np.ndarray) -> Detections:
        """Detect.

        Args:
            images: ``[B, 3, H, W]`` uint8 RGB; ``H`` and ``W`` are multiples of ``meta.stride``.

        Returns:
            Detections on the CPU, in pixels of ``images``.
        """
        ...


class TorchBackend:
    """A model in PyTorch.

    Args:
        model: ``model(images)`` gives :class:`aegl.types.Detections`; moved to ``device`` and set to evaluation.
        meta: classes, preprocessing and operating point.
        device: where to compute.
    """

    canvas: tuple[int, int] | None = None

    def __init__(self, model: nn.Module, meta: ModelMeta, device: torch.device | str = "cpu") -> None:
        self.meta = meta
        self._device = torch.device(device)
        self._model = place(model, self._device).eval()

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> Detections:
        """See :class:`Backend`."""
        with out_of_memory_told(lambda: describe_images(images), INFERENCE_REMEDIES):
            tensor = torch.from_numpy(np.ascontiguousarray(images)).to(self._device)
            detections: Detections = self._model(tensor)
            return detections.to("cpu")
