"""LOCE's memory: golden vectors of the class draw and of the jitter; what it stores and recalls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.errors import ConfigError
from aegl.longtail import MEMORIES
from aegl.longtail.losses.loce import Loce
from aegl.longtail.losses.softmax_ce import SoftmaxCE
from aegl.longtail.memories.loce import LoceMemory
from aegl.longtail.statistics import ClassStatistics


@pytest.fixture(scope="module")
def golden(oracles: Path) -> dict[str, np.ndarray]:
    with np.load(oracles / "loce.npz") as archive:
        return dict(archive)


def store(memory: LoceMemory, labels: list[int]) -> None:
    """One entry for each label; its features and offsets are all the number of the entry."""
    number = torch.arange(len(labels)).float()
    pooled = number[:, None, None, None].expand(-1, 2, 3, 3)
    memory.store(pooled, torch.tensor(labels, dtype=torch.int64), number[:, None].expand(-1, 4))


def uniform(classes: int, entries: int, value: float = 0.0) -> dict[str, torch.Tensor]:
    return {
        "classes": torch.full((classes,), value).double(),
        "entries": torch.full((classes, entries), value).double(),
    }


def test_golden_class_draw(golden: Any) -> None:
    bands = golden["freq_group"]
    stats = ClassStatistics(golden["instance_counts"], golden["image_counts"], 56740, bands)
    loss, memory = Loce(stats), LoceMemory(stats, entries=1, warmup=0.0)
    loss.mean_score.copy_(torch.as_tensor(golden["ebl_mean_score"]))
    store(memory, list(range(30)))
    draws = {"classes": torch.as_tensor(golden["mfs_sorted_uniforms"]), "entries": torch.zeros(8, 1).double()}
    _, labels, _ = memory.recall(loss, draws=draws)
    assert labels.tolist() == golden["mfs_selected_classes"].tolist()


def test_golden_jitter(golden: Any, stats: Any) -> None:
    boxes = torch.as_tensor(golden["mfs_boxes"])
    draws = {"jitter": torch.as_tensor(golden["mfs_offset_uniforms"]).T}
    probes = LoceMemory(stats).probes(boxes, tuple(golden["mfs_image_hw"].tolist()), draws=draws)
    np.testing.assert_allclose(probes.flatten(0, 1), golden["mfs_jittered"], rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(0, 90)] * 2, *[st.floats(0.1, 60)] * 2), max_size=4),
    st.floats(0, 0.49),
    st.integers(0, 1000),
)
def test_probes_stay_in_the_image_near_their_box_and_never_collapse(
    drawn: list[tuple[float, ...]], jitter: float, seed: int
) -> None:
    one = np.ones(3, dtype=np.int64)
    height, width = 80, 100
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in drawn]).reshape(-1, 4).double()
    boxes = boxes.minimum(torch.tensor([width, height] * 2).double())
    torch.manual_seed(seed)
    probes = LoceMemory(ClassStatistics(one, one, 3, one), jitter=jitter).probes(boxes, (height, width))
    assert probes.shape == (len(boxes), 16, 4)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)[:, None]
    at_edge = 1.0  # coordinates stop a pixel before the image's edge
    assert ((probes - boxes[:, None]).abs() <= jitter * sides + at_edge + 1e-6).all()
    thin = (probes[..., 2:] - probes[..., :2]).amin(-1) < 1
    assert torch.equal(probes[thin], boxes[:, None].expand(-1, 16, 4)[thin])


def test_low_scores_are_recalled_more_often(stats: Any) -> None:
    loss, memory = Loce(stats), LoceMemory(stats, classes=4000, entries=1, warmup=0.0)
    loss.mean_score[:6] = torch.tensor([0.1, 0.2, 0.4, 0.4, 0.4, 0.4])
    store(memory, list(range(6)))
    torch.manual_seed(0)
    _, labels, _ = memory.recall(loss)
    share = torch.bincount(labels, minlength=6) / len(labels)
    expected = torch.tensor([10, 5, 2.5, 2.5, 2.5, 2.5]) / 25
    torch.testing.assert_close(share, expected, atol=0.03, rtol=0)


def test_recall_gives_back_what_was_stored_together(stats: Any) -> None:
    memory = LoceMemory(stats, classes=50, entries=3, warmup=0.0)
    labels_in = [0, 5, 3, 3, 5, 5]
    store(memory, labels_in)
    torch.manual_seed(1)
    pooled, labels, offsets = memory.recall(Loce(stats))
    assert pooled.shape[1:] == (2, 3, 3) and offsets.shape[1:] == (4,) and labels.dtype == torch.int64
    assert torch.equal(pooled[:, 0, 0, 0], offsets[:, 0])
    assert [labels_in[int(number)] for number in offsets[:, 0]] == labels.tolist()
    assert set(offsets[:, 0].tolist()) == set(range(6))


def test_classes_without_entries_are_passed_over(stats: Any) -> None:
    memory = LoceMemory(stats, classes=60, entries=2, warmup=0.0)
    store(memory, [4])
    torch.manual_seed(0)
    _, labels, _ = memory.recall(Loce(stats))
    assert set(labels.tolist()) == {4}
    assert 0 < len(labels) < 120


def test_nothing_is_recalled_while_it_warms_up_or_is_empty(stats: Any) -> None:
    loss, memory = Loce(stats), LoceMemory(stats, warmup=0.5)
    store(memory, [])
    loss.step_begin(0.6, 0.0)
    assert [tuple(part.shape) for part in memory.recall(loss)] == [(0, 2, 3, 3), (0,), (0, 4)]
    store(memory, [0, 1, 2, 3, 4, 5])
    loss.step_begin(0.49, 0.0)
    assert len(memory.recall(loss)[1]) == 0
    loss.step_begin(0.5, 0.0)
    assert len(memory.recall(loss)[1]) == 32


def test_entries_drawn_reach_from_the_first_to_the_last(stats: Any) -> None:
    memory = LoceMemory(stats, queue_size=4, classes=1, entries=1, warmup=0.0)
    store(memory, [0, 0, 0, 0])
    for value, number in ((0.0, 0), (0.26, 1), (1 - 1e-12, 3)):
        draws = {"classes": torch.zeros(1).double(), "entries": torch.tensor([[value]], dtype=torch.float64)}
        assert memory.recall(Loce(stats), draws=draws)[2][0, 0] == number


def test_half_precision_halves_the_memory(stats: Any) -> None:
    memory = LoceMemory(stats, dtype="float16", warmup=0.0)
    store(memory, [0])
    assert memory.state_dict()["rings.pooled"].dtype == torch.float16
    assert memory.state_dict()["rings.offsets"].dtype == torch.float32
    assert memory.recall(Loce(stats), draws=uniform(8, 4))[0].dtype == torch.float16


def test_a_loss_without_mean_scores_is_refused(stats: Any) -> None:
    LoceMemory(stats).check(Loce(stats))
    with pytest.raises(ConfigError, match=r"mean scores.*loss\.name=loce"):
        LoceMemory(stats).check(SoftmaxCE(stats))


@pytest.mark.parametrize(
    ("option", "value"),
    [("queue_size", 0), ("classes", -1), ("warmup", 1.5), ("jitter", 0.5), ("dtype", "float64"), ("device", "gpu")],
)
def test_values_out_of_range_are_refused(stats: Any, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^memory\.{option}="):
        MEMORIES.build("loce", stats, **{option: value})


def test_the_state_round_trip_goes_on_alike(stats: Any) -> None:
    memory, other = (LoceMemory(stats, queue_size=3, warmup=0.0) for _ in range(2))
    store(memory, [0, 1, 1, 1, 1, 5])
    other.load_state_dict(memory.state_dict())
    results = []
    for each in (memory, other):
        store(each, [0, 1, 2])
        torch.manual_seed(7)
        results.append(each.recall(Loce(stats)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
