"""Memory-augmented feature sampling of LOCE (ICCV 2021): classes that the model scores low are seen more often."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from aegl.errors import ConfigError
from aegl.longtail._class_rings import ClassRings
from aegl.longtail.base import ClassificationLoss, Draws, FeatureMemory
from aegl.longtail.losses._distributed import rows_of_all_ranks
from aegl.longtail.statistics import ClassStatistics

_DTYPES = {"float32": torch.float32, "float16": torch.float16}
_SIGNS = torch.tensor(list(product((-1.0, 1.0), repeat=4)))
_LEAST_SIDE = 1.0


class LoceMemory(FeatureMemory):
    """Keeps pooled features of jittered boxes around every object, and recalls some in each step.

    Classes are drawn with replacement, with a probability in inverse proportion to their mean score in the loss; of
    each drawn class, entries are drawn with replacement. A class without an entry is passed over. All processes share
    one memory, but each draws for itself.

    Draws: ``jitter`` (``[..., 16, 4]``, see :meth:`probes`), ``classes`` (``[classes]``) and ``entries``
    (``[classes, entries]``), all uniform in [0, 1).
    """

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        queue_size: Annotated[int, Field(ge=1, description="Entries kept of each class.")] = 80,
        classes: Annotated[int, Field(ge=0, description="Classes recalled in a step, with replacement.")] = 8,
        entries: Annotated[int, Field(ge=0, description="Entries recalled of each of them.")] = 4,
        warmup: Annotated[
            float, Field(ge=0, le=1, description="Share of training in which the memory fills and recalls nothing.")
        ] = 0.05,
        jitter: Annotated[
            float, Field(ge=0, lt=0.5, description="Largest shift of a box's edge, as a share of its side.")
        ] = 1 / 6,
        dtype: Annotated[
            Literal["float32", "float16"], Field(description="What features are kept in; float16 halves the memory.")
        ] = "float32",
        device: Annotated[
            Literal["cpu", "model"], Field(description="Where they are kept: in main memory or where the model is.")
        ] = "cpu",
    ) -> None:
        super().__init__(stats)
        self.classes = classes
        self.entries = entries
        self.warmup = warmup
        self.jitter = jitter
        self.dtype = _DTYPES[dtype]
        self.device = device
        self.rings = ClassRings(self.num_classes, queue_size, ("pooled", "offsets"))
        self._pooled_shape: tuple[int, ...] = ()

    def check(self, loss: ClassificationLoss) -> None:
        """See :meth:`FeatureMemory.check`."""
        scores = getattr(loss, "mean_score", None)
        if not isinstance(scores, Tensor) or scores.shape[0] < self.num_classes:
            raise ConfigError(
                "this memory draws classes by their mean scores, which the loss does not keep; use loss.name=loce"
            )

    def probes(self, boxes: Tensor, image_size: tuple[int, int], *, draws: Draws | None = None) -> Tensor:
        """Each edge moved by up to ``jitter`` of the side, in all 16 combinations of directions.

        See :meth:`FeatureMemory.probes`. A box that the image's edge would leave thinner than a pixel stays as it is.
        """
        shape = (len(boxes), len(_SIGNS), 4)
        uniform = torch.rand(shape) if draws is None else draws["jitter"]
        signs, uniform = _SIGNS.to(boxes), uniform.to(boxes)
        sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)[:, None]
        moved = boxes[:, None] + signs * uniform * self.jitter * sides
        height, width = image_size
        moved = moved.clamp(min=0).minimum(moved.new_tensor([width - 1, height - 1, width - 1, height - 1]))
        usable = (moved[..., 2:] - moved[..., :2]).amin(dim=-1, keepdim=True) >= _LEAST_SIDE
        return torch.where(usable, moved, boxes[:, None])

    @torch.no_grad()
    def store(self, pooled: Tensor, labels: Tensor, offsets: Tensor) -> None:
        """See :meth:`FeatureMemory.store`; takes in what all processes found."""
        self._pooled_shape = tuple(pooled.shape[1:])
        pooled, labels, offsets = (rows_of_all_ranks(each) for each in (pooled.to(self.dtype), labels, offsets))
        if self.device == "cpu":
            pooled, labels, offsets = pooled.cpu(), labels.cpu(), offsets.cpu()
        self.rings.add(labels, pooled=pooled, offsets=offsets)

    @torch.no_grad()
    def recall(self, loss: ClassificationLoss, *, draws: Draws | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`FeatureMemory.recall`; on the device of the loss."""
        labels, slots = self._choose(loss, draws) if loss.progress >= self.warmup else ([], [])
        scores = loss.get_buffer("mean_score")
        pooled = self.rings.take(labels, slots, "pooled")
        offsets = self.rings.take(labels, slots, "offsets")
        return (
            _stack(pooled, self._pooled_shape, self.dtype).to(scores.device),
            torch.tensor(labels, dtype=torch.int64, device=scores.device),
            _stack(offsets, (4,), torch.float32).to(scores.device),
        )

    def _choose(self, loss: ClassificationLoss, draws: Draws | None) -> tuple[list[int], list[int]]:
        """Class and slot of each entry to recall."""
        chances = 1 / (loss.get_buffer("mean_score")[: self.num_classes].double().cpu() + 1e-7)
        uniform = torch.rand(self.classes, dtype=torch.float64) if draws is None else draws["classes"]
        drawn = torch.searchsorted((chances / chances.sum()).cumsum(0), uniform).clamp(max=self.num_classes - 1)
        which = torch.rand(self.classes, self.entries, dtype=torch.float64) if draws is None else draws["entries"]
        filled = self.rings.filled[drawn]
        slots = (which * filled[:, None]).long()
        present = filled > 0
        labels = drawn[present].repeat_interleave(self.entries)
        return labels.tolist(), slots[present].flatten().tolist()


def _stack(rows: list[Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """``[len(rows), *shape]``, also of no rows."""
    return torch.stack(rows) if rows else torch.zeros(0, *shape, dtype=dtype)
