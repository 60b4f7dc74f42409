"""AHRL: adaptive hierarchical representation learning (CVPR 2022), a reconstruction: the formula is not theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from aegl.errors import ConfigError
from aegl.longtail.base import ClassificationLoss, Draws, LossWeight, Rows
from aegl.longtail.classifiers import output_layers
from aegl.longtail.clustering import k_means
from aegl.longtail.losses._elementwise import at_least_float32
from aegl.longtail.statistics import ClassStatistics

_CLUSTERS = 50


class Ahrl(ClassificationLoss):
    """Softmax cross-entropy in two steps, cluster and class, the second with a margin between similar classes.

    With ``S(y)`` the classes in the cluster of y (background is a cluster of its own)::

        coarse = -log(sum_{j in S(y)} e^z_j / sum_k e^z_k)
        fine   = -log(e^z_y / (e^z_y + sum_{j in S(y), j != y} e^(z_j + scale m_yj)))
        m_yj   = margin max(0, cos(w_y, w_j))

    The loss is the mean of ``coarse + fine``; without margins it is softmax cross-entropy. ``w`` are the rows of the
    classifier as they stand, detached. Clusters are made once before training, by k-means on the directions of the rows
    that the run starts from.
    """

    is_softmax = True
    class_descriptions = ("classifier",)
    class_tables = ("cluster",)

    cluster: Tensor
    """``[C]`` int64."""

    def __init__(
        self,
        stats: ClassStatistics,
        *,
        clusters: Annotated[
            int | None, Field(ge=1, description="Clusters of classes; null: 50, at most half of the classes.")
        ] = None,
        margin: Annotated[float, Field(ge=0, description="Margin between parallel classes, as a cosine.")] = 0.1,
        scale: Annotated[float, Field(gt=0, description="Factor of the margins: the classifier's temperature.")] = 20.0,
        loss_weight: LossWeight = 1.0,
    ) -> None:
        super().__init__(stats)
        if clusters is not None and clusters > self.num_classes:
            raise ConfigError(f"loss.clusters={clusters}: must lie in 1..{self.num_classes}, the number of classes")
        self.num_logits = self.num_classes + 1
        self.clusters = clusters or max(1, min(_CLUSTERS, self.num_classes // 2))
        self.margin = margin
        self.scale = scale
        self.loss_weight = loss_weight
        self._directions: Tensor | None = None
        # Until the classes are described, which training begins with: neighbours in label order belong together.
        runs = torch.arange(self.num_classes) * self.clusters // max(self.num_classes, 1)
        self.register_buffer("cluster", runs)

    def describe_classes(self, vectors: Mapping[str, Tensor]) -> None:
        """Make the clusters; see :meth:`ClassificationLoss.describe_classes`."""
        self.cluster.copy_(k_means(vectors["classifier"], self.clusters, metric="cosine"))

    def observe(self, rows: Rows) -> None:
        """Look up the classifier's rows; see :meth:`ClassificationLoss.observe`."""
        weight = getattr(output_layers(rows.classifier)[0], "weight", None)
        if isinstance(weight, Tensor):
            self._directions = F.normalize(at_least_float32(weight.detach()[: self.num_classes]), dim=1)

    def forward(self, logits: Tensor, labels: Tensor, *, draws: Draws | None = None) -> dict[str, Tensor]:
        """The term ``cls``; see :meth:`ClassificationLoss.forward`. Draws nothing.

        The means of both steps are diagnostics. Before :meth:`observe` has seen a classifier's rows, no margins.
        """
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            cluster = F.pad(self.cluster, (0, 1), value=self.clusters)
            elsewhere = cluster[labels][:, None] != cluster
            inside = logits.masked_fill(elsewhere, -torch.inf)
            coarse = logits.logsumexp(dim=1) - inside.logsumexp(dim=1)
            raised = inside + self.scale * self._margins(labels, logits)
            fine = raised.logsumexp(dim=1) - logits.gather(1, labels[:, None]).squeeze(1)
            steps = torch.stack([coarse.sum(), fine.sum()]) / max(len(labels), 1)
            self.diagnostics["coarse"], self.diagnostics["fine"] = steps.detach().unbind()
            return {"cls": self.loss_weight * steps.sum()}

    def scores(self, logits: Tensor) -> Tensor:
        """See :meth:`ClassificationLoss.scores`; float32 at least. Background competes inside the softmax."""
        return torch.softmax(at_least_float32(logits), dim=-1)[..., : self.num_classes]

    def _margins(self, labels: Tensor, logits: Tensor) -> Tensor:
        """``[N, C + 1]``: of each row's class against every class; 0 for itself and background."""
        margins = torch.zeros_like(logits)
        if self._directions is None:
            return margins
        rows = (labels < self.num_classes).nonzero().squeeze(1)
        own = labels[rows]
        cosines = (self._directions[own] @ self._directions.T).clamp(min=0).to(logits.dtype)
        margins[rows, : self.num_classes] = self.margin * cosines.scatter(1, own[:, None], 0.0)
        return margins
