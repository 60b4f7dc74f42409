"""`ignore_unverified`: a class that nobody looked for in an image teaches nothing there, whatever the loss."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from aegl.config import load_config
from aegl.data.build import build_store
from aegl.data.dataset import DetectionDataset, collate
from aegl.data.preprocess import Preprocess
from aegl.data.store import AnnotationStore
from aegl.data.transforms import TrainTransform
from aegl.engine.splits import training_set
from aegl.longtail import LOSSES
from aegl.longtail.base import HIDDEN
from aegl.longtail.losses.fbs_aegl import FbsAegl
from aegl.longtail.losses.seesaw import Seesaw
from aegl.longtail.losses.sigmoid_bce import SigmoidBCE
from aegl.longtail.losses.softmax_ce import SoftmaxCE
from aegl.longtail.parts import Parts
from aegl.models.box_head import BoxHead
from aegl.models.roi_sampler import SampledRegions
from aegl.types import Targets

CLASSES = 6
ACTIVE = {
    "fbs_aegl": {"mu": 0.01},
    "acsl": {"threshold": 0.01},
    "gumbel_ce": {"largest_loss": None},
    "ldam": {"scale": 1.0},
}
"""Options with which the negative terms act, else there would be nothing to leave out."""


@pytest.fixture(params=sorted(LOSSES))
def loss(request: pytest.FixtureRequest, stats: Any) -> Any:
    return LOSSES[request.param](stats, **ACTIVE.get(request.param, {})).eval()  # eval: no state from call to call


def rows(loss: Any, batch: Any) -> Tensor:
    """Logits with as many columns as the loss wants, where every activation has a gradient."""
    torch.manual_seed(1)
    return torch.cat(
        [batch.logits.clamp(min=-3.5), torch.randn(len(batch.labels), loss.num_logits - CLASSES).double()], dim=1
    )


def verified_of(batch: Any) -> Tensor:
    return torch.rand(len(batch.labels), CLASSES, generator=torch.Generator().manual_seed(5)) < 0.5


def gradient(loss: Any, batch: Any, verified: Tensor | None, draws: Any = None) -> Tensor:
    leaf = rows(loss, batch).requires_grad_()
    given = leaf if verified is None else loss.hide_unverified(leaf, batch.labels, verified)
    torch.manual_seed(7)  # the same draws whatever is hidden
    terms = loss(given, batch.labels, draws=draws)
    (grad,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), leaf)
    return grad


def own(batch: Any) -> Tensor:
    return batch.labels[:, None] == torch.arange(CLASSES)


def test_no_gradient_where_nobody_looked(loss: Any, batch: Any) -> None:
    verified = verified_of(batch)
    hidden = ~(verified | own(batch))
    grad = gradient(loss, batch, verified)
    of_classes = loss.class_logits(grad)
    assert (of_classes[hidden] == 0).all()
    assert (loss.class_logits(gradient(loss, batch, None))[hidden] != 0).any()
    assert grad.isfinite().all() and (of_classes[verified] != 0).any()


def test_the_rows_own_class_is_always_learnt(loss: Any, batch: Any) -> None:
    grad = gradient(loss, batch, torch.zeros(len(batch.labels), CLASSES, dtype=torch.bool))
    of_classes = loss.class_logits(grad)
    assert (of_classes[~own(batch)] == 0).all()
    if isinstance(loss, Seesaw):  # its softmax is over the classes alone: one that is left has no rival
        assert (of_classes == 0).all() and (grad[:, CLASSES] < 0).any()
    else:
        assert (of_classes[own(batch)] < 0).all()


def test_all_verified_is_as_without_bit_for_bit(loss: Any, batch: Any) -> None:
    everything = torch.ones(len(batch.labels), CLASSES, dtype=torch.bool)
    assert torch.equal(gradient(loss, batch, everything), gradient(loss, batch, None))


@pytest.mark.parametrize("activation", ["sigmoid", "gumbel"])
@pytest.mark.parametrize("normalization", ["num_proposals", "num_foreground"])
def test_elementwise_losses_keep_every_other_element(
    activation: Any, normalization: Any, stats: Any, batch: Any
) -> None:
    loss = FbsAegl(stats, mu=0.01, activation=activation, normalization=normalization)
    verified = verified_of(batch)
    hidden = ~(verified | own(batch))
    expected = gradient(loss, batch, None).masked_fill(hidden, 0.0)
    torch.testing.assert_close(gradient(loss, batch, verified), expected, rtol=0, atol=0)


def test_a_softmax_is_taken_over_the_verified_classes_and_background(stats: Any, batch: Any) -> None:
    loss = SoftmaxCE(stats)
    verified = torch.tensor([1, 0, 1, 1, 0, 1], dtype=torch.bool).expand(40, CLASSES)
    some = torch.isin(batch.labels, torch.tensor([0, 2, 3, 5, 6]))
    batch = SimpleNamespace(labels=batch.labels[some], logits=batch.logits[some], uniform=batch.uniform[some])
    grad = gradient(loss, batch, verified[some])
    left = torch.tensor([0, 2, 3, 5, 6])
    leaf = rows(loss, batch)[:, left].requires_grad_()
    torch.nn.functional.cross_entropy(leaf, torch.searchsorted(left, batch.labels)).backward()
    torch.testing.assert_close(grad[:, left], leaf.grad)


def test_a_background_column_is_never_hidden(stats: Any, batch: Any) -> None:
    loss = SigmoidBCE(stats, objectness=True)
    nothing = torch.zeros(len(batch.labels), CLASSES, dtype=torch.bool)
    torch.testing.assert_close(
        gradient(loss, batch, nothing)[:, CLASSES], gradient(loss, batch, None)[:, CLASSES], rtol=0, atol=0
    )


@pytest.mark.parametrize("options", [{"mu": 0.01}, {"mu": 0.0, "foreground_weight": False, "background_weight": False}])
def test_a_sum_of_weights_is_one_over_what_is_left(options: Any, stats: Any, batch: Any, element_weights: Any) -> None:
    verified = verified_of(batch)
    draws = {"uniform": batch.uniform}
    plain = gradient(FbsAegl(stats, **options), batch, verified, draws)
    divided = gradient(FbsAegl(stats, **options, normalization="sum_of_weights"), batch, verified, draws)
    loss = FbsAegl(stats, **options)
    weights = element_weights(loss, rows(loss, batch), batch.labels, batch.uniform)
    total = weights[verified | own(batch)].sum()
    torch.testing.assert_close(divided, plain * len(batch.labels) / total)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_logit_of_a_hidden_class_is_the_same_in_every_dtype(dtype: torch.dtype, loss: Any, batch: Any) -> None:
    logits = rows(loss, batch).to(dtype).requires_grad_()
    given = loss.hide_unverified(logits, batch.labels, verified_of(batch))
    assert given.dtype == dtype and given.min() == HIDDEN
    total = loss(given, batch.labels)["cls"]
    total.backward()
    assert total.isfinite() and logits.grad is not None and logits.grad.isfinite().all()


def test_no_rows(loss: Any) -> None:
    empty = torch.zeros(0, loss.num_logits, requires_grad=True)
    labels = torch.zeros(0, dtype=torch.int64)
    given = loss.hide_unverified(empty, labels, torch.zeros(0, CLASSES, dtype=torch.bool))
    assert loss(given, labels)["cls"].isfinite()


# The toy picture: class 0 stands in it, 1 is known to be absent, 2 stands in it but perhaps more than once, 3 was not
# looked for, and neither were 4 and 5.

LOOKED_FOR = [True, True, False, False, False, False]


@pytest.fixture
def picture(tmp_path: Path) -> AnnotationStore:
    Image.effect_noise((64, 48), 40).convert("RGB").save(tmp_path / "toy.png")
    image = {"id": 1, "height": 48, "width": 64, "file_name": "toy.png"}
    image |= {"neg_category_ids": [11], "not_exhaustive_category_ids": [12]}

    def square(number: int, category: int, x: int) -> dict[str, Any]:
        corners = [x, 10, x + 10, 10, x + 10, 20, x, 20]
        return {
            "id": number,
            "image_id": 1,
            "category_id": category,
            "bbox": [x, 10, 10, 10],
            "segmentation": [corners],
        }

    content = {
        "images": [image, {"id": 2, "height": 48, "width": 64, "file_name": "toy.png", "neg_category_ids": []}],
        "annotations": [square(1, 10, 5), square(2, 12, 30)],
        "categories": [{"id": 10 + c, "name": str(c)} for c in range(CLASSES)],
    }
    (tmp_path / "toy.json").write_text(json.dumps(content))
    return build_store(tmp_path / "toy.json", cache_dir=tmp_path / "cache")


def targets_of(store: AnnotationStore, *, asked: bool) -> Targets:
    preprocess = Preprocess(imgsz=48, max_size=64, stride=16, pad_value=(0, 0, 0))
    dataset = DetectionDataset(store, preprocess, transform=TrainTransform((48,), 0.0), with_verified=asked)
    targets = collate([dataset[0], dataset[1]], preprocess).targets
    assert targets is not None
    return targets


def test_what_is_verified_in_the_toy_picture(picture: AnnotationStore) -> None:
    assert picture.verified(0).tolist() == LOOKED_FOR
    assert picture.verified(1).tolist() == [False] * CLASSES
    targets = targets_of(picture, asked=True)
    assert targets.verified is not None and targets.verified.tolist() == [LOOKED_FOR, [False] * CLASSES]
    moved = targets.to("cpu")
    assert moved.verified is not None and torch.equal(moved.verified, targets.verified)
    assert targets_of(picture, asked=False).verified is None


def test_everything_is_verified_where_everything_was_annotated(picture: AnnotationStore) -> None:
    content = json.loads(picture.source.read_text())
    for image in content["images"]:
        image.pop("neg_category_ids", None)
    picture.source.write_text(json.dumps(content))
    store = build_store(picture.source, cache_dir=picture.source.parent / "cache")
    assert not store.federated and store.verified(0).all() and store.verified(1).all()


class Says(nn.Module):
    """A classifier of fixed logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, hidden: Tensor) -> Tensor:
        return self.logits


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("asked", [True, False])
def test_the_box_head_learns_only_what_the_picture_says(
    name: str, asked: bool, picture: AnnotationStore, stats: Any
) -> None:
    head = BoxHead(8, 16, Parts(LOSSES[name](stats, **ACTIVE.get(name, {}))))
    targets = targets_of(picture, asked=asked)
    # In the first picture its two objects and a background region, in the second one background region.
    regions = SampledRegions(
        torch.tensor(
            [[0, 5, 10, 15, 20], [0, 30, 10, 40, 20], [0, 0, 30, 9, 40], [1, 0, 0, 9, 9]], dtype=torch.float32
        ),
        torch.tensor([0, 2, CLASSES, CLASSES]),
        torch.tensor([0, 1, 0, 0]),
    )
    torch.manual_seed(0)
    logits = torch.randn(4, head.loss.num_logits, requires_grad=True)
    head.classifier = Says(logits)
    terms = head.losses(regions, targets, lambda rois: torch.zeros(len(rois), 8, 1, 1), (48, 64))
    (grad,) = torch.autograd.grad(terms["cls"], logits)
    learnt = (head.loss.class_logits(grad) != 0).numpy()
    allowed = np.array([LOOKED_FOR, [c in (0, 1, 2) for c in range(CLASSES)], LOOKED_FOR, [False] * CLASSES])
    assert learnt[0, 0] and learnt[1, 2]
    assert (learnt & ~allowed).any() != asked


@pytest.mark.parametrize(("asked", "federated"), [(True, True), (False, True), (True, False)])
def test_the_key_reaches_the_training_set(
    asked: bool, federated: bool, picture: AnnotationStore, caplog: pytest.LogCaptureFixture
) -> None:
    picture.federated = federated
    meta = SimpleNamespace(imgsz=48, max_size=64, stride=16, pad_value=(0, 0, 0))
    splits = SimpleNamespace(train=picture, segments=None)
    with caplog.at_level(logging.INFO, logger="aegl"):
        dataset = training_set(load_config({"ignore_unverified": asked}), splits, meta)  # type: ignore[arg-type]
    assert dataset.with_verified == (asked and federated)
    assert ("changes nothing" in caplog.text) == (asked and not federated)
