"""SimCal's choice of regions: the drawn class, and as much background."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.config import load_config
from aegl.errors import ConfigError
from aegl.longtail.selectors.bilevel import Bilevel


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 60))
def test_rows_that_train(stats: Any, seed: int, number: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 7, (number,), generator=generator)
    images = torch.randint(0, 3, (number,), generator=generator)
    focus = torch.tensor([2, -1, 4])
    kept = Bilevel(stats).rows(labels, images, focus)
    assert kept.tolist() == sorted(set(kept.tolist()))
    for image in range(3):
        here = images == image
        wanted = int((here & (labels == focus[image])).sum())
        mine = labels[kept][images[kept] == image]
        assert int((mine == focus[image]).sum()) == wanted
        assert int((mine == 6).sum()) == min(wanted, int((here & (labels == 6)).sum()))
        assert len(mine) == int((mine == focus[image]).sum() + (mine == 6).sum())


def test_background_is_drawn_anew_from_torchs_generator(stats: Any) -> None:
    labels = torch.tensor([1] * 5 + [6] * 60)
    images, focus = torch.zeros(65).long(), torch.tensor([1])
    torch.manual_seed(0)
    first, second = (Bilevel(stats).rows(labels, images, focus) for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(Bilevel(stats).rows(labels, images, focus), first)
    assert not torch.equal(first, second)


def test_another_sampler_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match=r"selector\.name=bilevel, sampler=rfs: it needs .*class_balanced"):
        load_config({"method": "softmax_ce", "selector": "bilevel", "sampler": "rfs"})
    load_config({"method": "softmax_ce", "selector": "bilevel", "sampler": "class_balanced"})


def test_without_knowing_the_drawn_class_it_cannot_choose(stats: Any) -> None:
    with pytest.raises(ValueError, match="drawn"):
        Bilevel(stats).rows(torch.zeros(3).long(), torch.zeros(3).long(), None)
