"""BAGS: Balanced Group Softmax (Li et al., CVPR 2020)."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from aegl.errors import ConfigError
from aegl.longtail.base import ClassificationLoss, Draws, LossWeight
from aegl.longtail.losses._elementwise import at_least_float32
from aegl.longtail.statistics import ClassStatistics


class Bags(ClassificationLoss):
    """A softmax of its own for every group of similarly frequent classes, so that frequent ones cannot crowd out rare.

    Each group of classes has an entry *others* for rows whose class lies elsewhere, background included; a last group
    tells objects from background. ``G`` groups of classes make ``C + G + 2`` columns, **not in class order**::

        [others, classes of group 0 ...], [others, classes of group 1 ...], ..., [object, background]

    A group's loss is the mean cross-entropy of all its own rows and of ``others_ratio`` times as many others, drawn at
    random; a group without a row of its own has none. The last group takes every row. Groups are summed. The score of
    a class is its share in its group times the probability of an object.

    Draws: ``uniform``, ``[G, N]``; of the other rows those with the smallest values are taken.
    """

    columns: Tensor
    """``[num_logits]`` int64: the columns of the C classes in class order, then all others."""
    targets: Tensor
    """``[G + 1, C + 1]`` int64: entry of each group where the rows of a label belong; 0 is its first."""

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        group_edges: Annotated[
            list[int],
            Field(description="Smallest counts of the second and further groups; a group may be empty."),
        ] = [10, 100, 1000],  # noqa: B006  # read only
        group_by: Annotated[
            Literal["instances", "images"], Field(description="What is counted per class in the training set.")
        ] = "instances",
        others_ratio: Annotated[
            float, Field(ge=0, description="Other rows that train a group, per row of the group (the paper's beta).")
        ] = 8.0,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats)
        if any(low >= high for low, high in pairwise(group_edges)):
            raise ConfigError(f"loss.group_edges={group_edges}: each edge must be larger than the one before")
        counts = stats.instance_counts if group_by == "instances" else stats.image_counts
        num_groups = len(group_edges) + 1
        group = torch.from_numpy(np.searchsorted(np.asarray(group_edges), np.asarray(counts), side="right"))
        group = F.pad(group, (0, 1), value=num_groups)  # background alone in the last one
        members = group == torch.arange(num_groups + 1)[:, None]
        targets = members * members.cumsum(1)
        self.sizes = [1 + number for number in members.sum(1).tolist()]
        self.num_logits = sum(self.sizes)
        self.others_ratio = others_ratio
        self.loss_weight = loss_weight
        starts = torch.tensor([0, *self.sizes[:-1]]).cumsum(0)
        classes = (starts[group] + targets.sum(0))[:-1]
        others = torch.ones(self.num_logits, dtype=torch.bool).index_fill(0, classes, False).nonzero().squeeze(1)
        # The layout follows from the statistics: no part of a checkpoint.
        self.register_buffer("columns", torch.cat([classes, others]), persistent=False)
        self.register_buffer("targets", targets, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls``; see :meth:`ClassificationLoss.forward`."""
        with torch.autocast(logits.device.type, enabled=False):
            targets = self.targets[:, labels]
            weights = self._rows_used(targets[:-1], draws or {})
            groups = at_least_float32(logits).split(self.sizes, dim=1)
            means = [
                (weight * F.cross_entropy(group, target, reduction="none")).sum() / weight.sum().clamp(min=1)
                for group, target, weight in zip(groups, targets, weights, strict=True)
            ]
            return {"cls": self.loss_weight * torch.stack(means).sum()}

    def class_logits(self, logits: Tensor) -> Tensor:
        """See :meth:`ClassificationLoss.class_logits`."""
        return logits[..., self.columns[: self.num_classes]]

    def hide_unverified(self, logits: Tensor, labels: Tensor, verified: Tensor) -> Tensor:
        """See :meth:`ClassificationLoss.hide_unverified`; the columns keep this loss's order."""
        hidden = super().hide_unverified(logits[:, self.columns], labels, verified)
        return hidden[:, self.columns.argsort()]

    def scores(self, logits: Tensor) -> Tensor:
        """See :meth:`ClassificationLoss.scores`; float32 at least. Not normalised over the groups."""
        *groups, foreground = at_least_float32(logits).split(self.sizes, dim=-1)
        shares = torch.cat([group.softmax(dim=-1) for group in groups], dim=-1)
        return self.class_logits(shares) * foreground.softmax(dim=-1)[..., :1]

    @torch.no_grad()
    def _rows_used(self, targets: Tensor, draws: Draws) -> Tensor:
        """``[G + 1, N]`` float: 1 for the rows that train a group, all of them in the last."""
        inside = targets > 0
        uniform = draws.get("uniform")
        if uniform is None:
            uniform = torch.rand(targets.shape, device=targets.device)
        rank = uniform.masked_fill(inside, -1.0).argsort(dim=1, stable=True).argsort(dim=1)
        own = inside.sum(1, keepdim=True)
        used = rank < own + (self.others_ratio * own.double()).floor()
        return F.pad(used.float(), (0, 0, 0, 1), value=1.0)
