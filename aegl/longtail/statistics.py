"""What a long-tail method may know about a data set: how often each class occurs in training, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ClassStatistics:
    """Counts of the un-repeated training set, one entry per class ``0..C-1``.

    Args:
        instance_counts: ``[C]`` int64, annotations per class (the paper's ``n_i``).
        image_counts: ``[C]`` int64, images that contain the class at least once.
        num_images: number of training images that carry at least one annotation.
        class_band: ``[C]`` int64, index of each class's frequency band, 0 the rarest.
        band_names: names of the bands, rarest first, e.g. ``("r", "c", "f")``.
        low_bands: how many bands, from the rarest, count as low-frequency (LVIS: 2, rare and common).
    """

    instance_counts: np.ndarray
    image_counts: np.ndarray
    num_images: int
    class_band: np.ndarray
    band_names: tuple[str, ...] = ("r", "c", "f")
    low_bands: int = 2

    @property
    def num_classes(self) -> int:
        """Number of foreground classes ``C``."""
        return len(self.instance_counts)

    @property
    def low_frequency(self) -> np.ndarray:
        """``[C]`` bool, true for classes in the ``low_bands`` rarest bands."""
        return np.asarray(self.class_band) < self.low_bands

    @property
    def band_sizes(self) -> dict[str, int]:
        """Number of classes of each band, rarest first."""
        sizes = np.bincount(np.asarray(self.class_band), minlength=len(self.band_names)).tolist()
        return dict(zip(self.band_names, sizes, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for checkpoints."""
        return {
            "instance_counts": self.instance_counts.tolist(),
            "image_counts": self.image_counts.tolist(),
            "num_images": int(self.num_images),
            "class_band": self.class_band.tolist(),
            "band_names": list(self.band_names),
            "low_bands": self.low_bands,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClassStatistics:
        """Inverse of :meth:`to_dict`."""
        return cls(
            instance_counts=np.asarray(values["instance_counts"], dtype=np.int64),
            image_counts=np.asarray(values["image_counts"], dtype=np.int64),
            num_images=int(values["num_images"]),
            class_band=np.asarray(values["class_band"], dtype=np.int64),
            band_names=tuple(values["band_names"]),
            low_bands=int(values["low_bands"]),
        )
