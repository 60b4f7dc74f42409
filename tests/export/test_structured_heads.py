"""Heads whose parts are several per region or shared by classes, exported: the same scores and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from aegl.longtail import LOSSES
from aegl.longtail.parts import Parts
from aegl.longtail.statistics import ClassStatistics
from aegl.models.box_head import BoxHead
from aegl.models.mask_head import MaskHead

CLASSES = 11


class Heads(nn.Module):
    """What of a detector differs between these methods."""

    def __init__(self, loss: str, classifier: Any, clusters: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        counts = np.arange(1, CLASSES + 1) ** 2
        stats = ClassStatistics(counts, counts, 500, np.minimum(np.arange(CLASSES) // 4, 2))
        self.box = BoxHead(4 * 9, 16, Parts(LOSSES.build(loss, stats)), classifier=classifier)
        self.mask = MaskHead(4, 8, 1, CLASSES, clusters=clusters)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)
        # Tables that are not in order, so that no other will do.
        for name in ("box.loss.parents", "mask.row_of_class"):
            if name in self.state_dict():
                self.get_buffer(name)[..., :CLASSES] = self.get_buffer(name)[..., torch.randperm(CLASSES)]

    def forward(self, pooled: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits, _ = self.box(pooled)
        return self.box.scores(logits), self.mask(pooled, labels)


@pytest.mark.parametrize(
    ("loss", "classifier", "clusters"), [("forest_rcnn", "branches", 4), ("simcal", "dual", 0), ("ahrl", "branches", 1)]
)
def test_scores_and_masks(loss: str, classifier: str, clusters: int) -> None:
    heads = Heads(loss, classifier, clusters).eval()
    rows = torch.export.Dim("rows", min=1)
    program = torch.onnx.export(
        heads,
        (torch.randn(2, 4, 3, 3), torch.tensor([0, 1])),
        dynamic_shapes=({0: rows}, {0: rows}),
        opset_version=18,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    pooled, labels = torch.randn(40, 4, 3, 3), torch.arange(40) % CLASSES
    inputs = [given.name for given in session.get_inputs()]
    found = session.run(None, dict(zip(inputs, [pooled.numpy(), labels.numpy()], strict=True)))
    for answer, expected in zip(found, heads(pooled, labels), strict=True):
        torch.testing.assert_close(torch.from_numpy(answer), expected.detach(), atol=1e-5, rtol=1e-4)
        assert expected.std() > 0.05  # or it would show little
