"""What a trained model must know about itself to be used: saved in checkpoints and in ONNX files alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from aegl._version import __version__
from aegl.errors import CheckpointError


@dataclass(frozen=True)
class ModelMeta:
    """Classes, preprocessing and operating point of one model (no torch needed to read it).

    Sizes are pixels, thresholds lie in [0, 1], ``pixel_mean`` and ``pixel_std`` are RGB in 0..255.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    band_names: tuple[str, ...]
    class_band: tuple[int, ...]
    model: str
    method: str
    data: str
    protocol: str
    imgsz: int
    max_size: int
    stride: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    conf: float
    iou: float
    max_det: int
    mask_size: int
    aegl_version: str = __version__

    @property
    def num_classes(self) -> int:
        """Number of foreground classes ``C``."""
        return len(self.names)

    @property
    def pad_value(self) -> tuple[int, int, int]:
        """RGB colour of padding: the pixel mean, rounded, so that padding is near zero after normalisation."""
        r, g, b = (round(v) for v in self.pixel_mean)
        return r, g, b

    def to_dict(self) -> dict[str, Any]:
        """Plain containers only, for JSON and for ``torch.load(weights_only=True)``."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelMeta:
        """Inverse of :meth:`to_dict`. Raises :class:`CheckpointError` naming what is missing."""
        missing = [f.name for f in fields(cls) if f.name not in values]
        if missing:
            raise CheckpointError(f"the model's metadata lacks {', '.join(missing)}: was it written by aegl?")
        known = {f.name for f in fields(cls)}
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        return cls(**given)
