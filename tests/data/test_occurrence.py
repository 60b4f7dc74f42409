"""Which class is in which image."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aegl.data.occurrence import images_per_class, occurrences


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=30))
def test_a_class_counts_once_in_an_image(annotations: list[tuple[int, int]]) -> None:
    images, labels = [image for image, _ in annotations], [label for _, label in annotations]
    found = list(zip(*(part.tolist() for part in occurrences(images, labels, 4)), strict=True))
    assert found == sorted(set(annotations))
    assert images_per_class(images, labels, 4).tolist() == [
        len({i for i, k in annotations if k == c}) for c in range(4)
    ]


def test_without_classes_there_is_nothing() -> None:
    assert images_per_class([], [], 0).shape == (0,)
    assert occurrences(np.zeros(0, np.int32), [], 0)[0].dtype == np.int64
