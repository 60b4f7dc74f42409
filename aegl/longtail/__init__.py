"""Long-tail methods. Knows tensors and class statistics, nothing of models, data files or configuration."""

from aegl.longtail.base import ClassificationLoss
from aegl.longtail.losses.fbs_aegl import FbsAegl
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.losses.softmax_ce import SoftmaxCE

LOSSES: dict[str, type[ClassificationLoss]] = {
    "softmax_ce": SoftmaxCE,
    "sigmoid_bce": SigmoidBCE,
    "fbs_aegl": FbsAegl,
}
"""Every classification loss by its configuration name (`loss.name`)."""
