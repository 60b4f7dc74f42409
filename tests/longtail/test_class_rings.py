"""Rings of features per class: what they keep, and how they go through a state dict whose sizes nobody knows before."""

from __future__ import annotations

import copy
from collections import deque
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aegl.longtail._class_rings import ClassRings

CLASSES = 4


def filled(size: int = 3, seed: int = 0, count: int = 9) -> ClassRings:
    rings = ClassRings(CLASSES, size, ("features", "weight"))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES - 1, (count,), generator=generator)  # the last class stays empty
    rings.add(labels, features=torch.randn(count, 2, 2, generator=generator), weight=torch.arange(count).double())
    return rings


def content(rings: ClassRings) -> dict[int, list[float]]:
    counts = rings.filled.tolist()
    return {c: [float(rings.take([c], [s], "weight")[0]) for s in range(n)] for c, n in enumerate(counts)}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, CLASSES - 1), max_size=12), max_size=6), st.integers(1, 4))
def test_the_last_entries_of_each_class_are_kept(batches: list[list[int]], size: int) -> None:
    rings, expected, number = ClassRings(CLASSES, size, ("weight",)), [deque(maxlen=size) for _ in range(CLASSES)], 0
    for labels in batches:
        numbers = torch.arange(number, number + len(labels)).double()
        rings.add(torch.tensor(labels, dtype=torch.int64), weight=numbers)
        for label, value in zip(labels, numbers.tolist(), strict=True):
            expected[label].append(value)
        number += len(labels)
    assert rings.filled.tolist() == [len(each) for each in expected]
    assert {c: sorted(v) for c, v in content(rings).items()} == {c: sorted(v) for c, v in enumerate(expected)}


def test_a_new_entry_takes_the_place_of_the_oldest() -> None:
    rings = ClassRings(1, 3, ("weight",))
    for number in range(5):
        rings.add(torch.zeros(1, dtype=torch.int64), weight=torch.tensor([float(number)]))
    assert content(rings) == {0: [3.0, 4.0, 2.0]}


def test_state_survives_a_file_and_goes_on_alike_whatever_was_there_before(tmp_path: Path) -> None:
    rings = filled()
    torch.save(nn.ModuleDict({"m": rings}).state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    for other in (ClassRings(CLASSES, 3, ("features", "weight")), filled(seed=5, count=20)):
        nn.ModuleDict({"m": other}).load_state_dict(state)
        twin = copy.deepcopy(rings)
        for each in (twin, other):
            each.add(
                torch.tensor([1, 1, 3]), features=torch.ones(3, 2, 2), weight=torch.tensor([70.0, 71, 72]).double()
            )
        assert content(other) == content(twin)
        assert torch.equal(other.state_dict()["features"], twin.state_dict()["features"])


def test_empty_rings_load_into_filled_ones() -> None:
    rings = filled()
    rings.load_state_dict(ClassRings(CLASSES, 3, ("features", "weight")).state_dict())
    assert not rings.filled.any()


def test_loading_copies() -> None:
    state = filled().state_dict()
    other = ClassRings(CLASSES, 3, ("features", "weight"))
    other.load_state_dict(state)
    before = state["features"].clone()
    other.add(torch.zeros(3, dtype=torch.int64), features=torch.zeros(3, 2, 2), weight=torch.zeros(3).double())
    assert torch.equal(state["features"], before)


def test_a_copy_of_the_model_is_independent() -> None:
    rings = filled()
    before, twin = content(rings), copy.deepcopy(rings)
    twin.add(torch.tensor([0]), features=torch.zeros(1, 2, 2), weight=torch.tensor([99.0]).double())
    assert content(rings) == before


def test_what_does_not_fit_is_refused() -> None:
    state = filled().state_dict()
    with pytest.raises(RuntimeError, match="Missing key"):
        filled().load_state_dict({k: v for k, v in state.items() if k != "weight"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*other"):
        filled().load_state_dict({**state, "other": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="are not those of 4 classes of up to 2 each"):
        ClassRings(CLASSES, 2, ("features", "weight")).load_state_dict(state)
    unchanged = filled()
    unchanged.load_state_dict({}, strict=False)
    assert content(unchanged) == content(filled())


def test_only_what_is_filled_is_in_the_state() -> None:
    state = filled(size=1000).state_dict()
    assert len(state["features"]) == len(state["weight"]) == 9
    assert state["features"].untyped_storage().nbytes() == 9 * 4 * 4
