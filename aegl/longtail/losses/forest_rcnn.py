"""Forest R-CNN: classes scored together with their parents in several trees (Wu et al., ACM MM 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from aegl.errors import ConfigError
from aegl.longtail.base import ClassificationLoss, Draws, LossWeight
from aegl.longtail.clustering import k_means
from aegl.longtail.losses._elementwise import at_least_float32
from aegl.longtail.statistics import ClassStatistics

TreeName = Literal["visual", "geometric", "lexical"]

_DESCRIPTIONS: dict[TreeName, str] = {"visual": "classifier", "geometric": "mask", "lexical": "parent"}
_PUBLISHED_SIZES: dict[TreeName, int] = {"visual": 25, "geometric": 50, "lexical": 108}


class ForestRcnn(ClassificationLoss):
    """A softmax over the classes and, for each tree, one over the groups that it puts the classes into.

    Columns: C classes and background, then for each tree *background* and its groups. The loss is the sum of the mean
    cross-entropies of all these softmaxes. With ``c_j`` the probability of class j's parent, averaged over the trees,
    the score of class j is ``c_j exp(z_j) / sum_k c_k exp(z_k)``, background among the k.

    Trees are made once before training: *visual* groups the rows of the classifier the run starts from, *geometric* the
    classes' mean masks, both by k-means; *lexical* takes the parents that the data set or the user names.
    """

    class_tables = ("parents",)

    parents: Tensor
    """``[T, C + 1]`` int64: group of each class in each tree, from 1 on; 0 for background."""

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        trees: Annotated[
            list[TreeName],
            Field(description="What the classes are grouped by, in a tree each."),
        ] = ["visual", "geometric"],  # noqa: B006  # read only
        clusters: Annotated[
            list[int] | None,
            Field(description="Groups of each tree; null: 25, 50, 108 as published, at most half of the classes."),
        ] = None,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats)
        self.trees = tuple(trees)
        self.class_descriptions = tuple(_DESCRIPTIONS[tree] for tree in trees)
        self.clusters = self._sizes(clusters)
        self.num_logits = sum(self.column_groups)
        self.loss_weight = loss_weight
        # Until the classes are described, which training begins with: neighbours in label order belong together.
        classes = torch.arange(self.num_classes)
        runs = [1 + classes * size // self.num_classes for size in self.clusters]
        self.register_buffer("parents", F.pad(torch.stack(runs), (0, 1)))

    @property
    def column_groups(self) -> tuple[int, ...]:
        """See :attr:`ClassificationLoss.column_groups`: the classes, then each tree."""
        return (self.num_classes + 1, *(1 + size for size in self.clusters))

    def describe_classes(self, vectors: Mapping[str, Tensor]) -> None:
        """Make the trees; see :meth:`ClassificationLoss.describe_classes`."""
        for row, (tree, size) in enumerate(zip(self.trees, self.clusters, strict=True)):
            known = vectors[_DESCRIPTIONS[tree]]
            group = k_means(known, size) if tree != "lexical" else self._lexical(known, size)
            self.parents[row, :-1] = 1 + group

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls`` of the classes and one for each tree, as ``cls_visual``. Draws nothing."""
        with torch.autocast(logits.device.type, enabled=False):
            groups = at_least_float32(logits).split(self.column_groups, dim=1)
            targets = [labels, *self.parents[:, labels]]
            names = ["cls", *(f"cls_{tree}" for tree in self.trees)]
            factor = self.loss_weight / max(len(labels), 1)
            return {
                name: factor * F.cross_entropy(group, target, reduction="sum")
                for name, group, target in zip(names, groups, targets, strict=True)
            }

    def scores(self, logits: Tensor) -> Tensor:
        """See :meth:`ClassificationLoss.scores`; float32 at least."""
        fine, *trees = at_least_float32(logits).split(self.column_groups, dim=-1)
        parents = self.parents.unbind(0)
        shares = [tree.log_softmax(dim=-1)[..., parent] for tree, parent in zip(trees, parents, strict=True)]
        # The mean's factor 1 / T cancels out; as logarithms no product can vanish.
        rated = fine + torch.stack(shares).logsumexp(dim=0)
        return rated.softmax(dim=-1)[..., : self.num_classes]

    def _sizes(self, given: list[int] | None) -> tuple[int, ...]:
        """Groups of each tree, checked."""
        trees = self.trees
        if not trees or len(set(trees)) < len(trees):
            raise ConfigError(f"loss.trees={list(trees)}: name one tree or more, each once")
        if given is None:
            return tuple(max(1, min(_PUBLISHED_SIZES[tree], self.num_classes // 2)) for tree in trees)
        if len(given) != len(trees):
            raise ConfigError(f"loss.clusters={given}: give one number for each of loss.trees={list(trees)}")
        if not all(1 <= size <= self.num_classes for size in given):
            raise ConfigError(f"loss.clusters={given}: each must lie in 1..{self.num_classes}, the number of classes")
        return tuple(given)

    def _lexical(self, parent: Tensor, size: int) -> Tensor:
        number = int(parent.max()) + 1
        if number > size:
            sizes = [
                number if tree == "lexical" else other for tree, other in zip(self.trees, self.clusters, strict=True)
            ]
            raise ConfigError(
                f"loss.clusters: the classes have {number} parents, so the lexical tree needs as many groups; "
                f"give loss.clusters={sizes}"
            )
        return parent
