"""Which frequency band a class belongs to, and the counts it follows from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegl.config import load_config
from aegl.config.sections import BandsSection, ShapesSection
from aegl.data.bands import Bands, bands_without_training_set, class_statistics
from aegl.data.source import resolve_data
from aegl.data.store import AnnotationStore
from aegl.errors import DataError

Content = dict[str, Any]


def training_set(counts: dict[str, tuple[int, int]], **fields: list[Any]) -> Content:
    """Classes with (images, instances); every instance beyond the images' number lies in the first of them."""
    categories = [
        {"id": k + 1, "name": name, **{key: values[k] for key, values in fields.items()}}
        for k, name in enumerate(counts)
    ]
    pairs = [
        (k + 1, min(i, images - 1)) for k, (images, instances) in enumerate(counts.values()) for i in range(instances)
    ]
    return {
        "images": [{"id": i, "height": 9, "width": 9} for i in range(max(images for images, _ in counts.values()) + 1)],
        "annotations": [
            {"id": a, "image_id": image, "category_id": category, "bbox": [0, 0, 1, 1]}
            for a, (category, image) in enumerate(pairs)
        ],
        "categories": categories,
    }


COUNTS = {"none": (0, 0), "one": (1, 30), "edge": (10, 10), "over": (11, 11), "many": (100, 150), "most": (101, 101)}
FREQUENCY = ["f", "c", "r", "r", "c", "f"]
"""Unlike the counts."""


class TestCounts:
    def test_images_and_instances(self, store_of: Callable[..., AnnotationStore]) -> None:
        statistics = class_statistics(store_of(training_set(COUNTS)), Bands())
        assert statistics.image_counts.tolist() == [0, 1, 10, 11, 100, 101]
        assert statistics.instance_counts.tolist() == [0, 30, 10, 11, 150, 101]
        assert statistics.num_images == 101  # one more has no objects

    def test_crowds_do_not_count(self, content: Content, store_of: Callable[..., AnnotationStore]) -> None:
        statistics = class_statistics(store_of(content), Bands())
        assert statistics.instance_counts.tolist() == [2, 0, 1] and statistics.image_counts.tolist() == [2, 0, 1]
        content["annotations"] = [a for a in content["annotations"] if a["id"] == 103]
        assert class_statistics(store_of(content), Bands()).num_images == 0

    def test_no_classes_at_all(self, store_of: Callable[..., AnnotationStore]) -> None:
        statistics = class_statistics(store_of({"images": [], "annotations": [], "categories": []}), Bands())
        assert statistics.num_classes == 0 and statistics.class_band.tolist() == []


class TestByCounts:
    def test_a_count_equal_to_an_edge_is_of_the_rarer_band(self, store_of: Callable[..., AnnotationStore]) -> None:
        statistics = class_statistics(store_of(training_set(COUNTS)), Bands(source="counts"))
        assert statistics.class_band.tolist() == [0, 0, 0, 1, 1, 2]
        assert statistics.class_band.dtype == np.int64

    def test_by_instances(self, store_of: Callable[..., AnnotationStore]) -> None:
        statistics = class_statistics(store_of(training_set(COUNTS)), Bands(by="instances"))
        assert statistics.class_band.tolist() == [0, 1, 0, 1, 2, 2]

    def test_the_four_bins_of_coco_lt(self, store_of: Callable[..., AnnotationStore], tmp_path: Path) -> None:
        counts = {str(n): (n and 1, n) for n in (0, 1, 19, 20, 399, 400, 7999, 8000)}
        section = load_config({"data": "coco_lt"}).bands
        source = resolve_data("coco_lt", data_dir=tmp_path, shapes=ShapesSection(), bands=section)
        fields = {"frequency": ["1"] * 8}  # not what coco_lt goes by
        statistics = class_statistics(store_of(training_set(counts, **fields)), source.bands)
        assert statistics.class_band.tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
        assert statistics.band_names == ("1", "2", "3", "4")
        assert statistics.low_frequency.tolist() == [True] * 5 + [False] * 3

    @given(
        st.lists(st.integers(0, 1000), unique=True, min_size=1, max_size=5).map(sorted),
        st.lists(st.integers(0, 1200), max_size=20),
    )
    def test_every_class_lies_between_the_edges_of_its_band(self, edges: list[int], counts: list[int]) -> None:
        names = tuple(map(str, range(len(edges) + 1)))
        band = Bands(names, tuple(edges)).of_counts(np.asarray(counts, dtype=np.int64))
        limits = [-1, *edges, 10**9]
        assert all(limits[b] < count <= limits[b + 1] for b, count in zip(band.tolist(), counts, strict=True))

    @pytest.mark.parametrize(("low", "expected"), [(0, 0), (1, 3), (2, 5), (3, 6)])
    def test_low_is_the_number_of_low_bands(
        self, low: int, expected: int, store_of: Callable[..., AnnotationStore]
    ) -> None:
        statistics = class_statistics(store_of(training_set(COUNTS)), Bands(low=low))
        assert statistics.low_frequency.sum() == expected and statistics.low_bands == low


class TestByFile:
    @pytest.mark.parametrize("source", ["auto", "file"])
    def test_the_field_goes_before_counts(self, source: Any, store_of: Callable[..., AnnotationStore]) -> None:
        store = store_of(training_set(COUNTS, frequency=FREQUENCY))
        assert class_statistics(store, Bands(source=source)).class_band.tolist() == [2, 1, 0, 0, 1, 2]

    def test_counts_can_be_asked_for(self, store_of: Callable[..., AnnotationStore]) -> None:
        store = store_of(training_set(COUNTS, frequency=FREQUENCY))
        assert class_statistics(store, Bands(source="counts")).class_band.tolist() == [0, 0, 0, 1, 1, 2]

    @pytest.mark.parametrize(
        "bands",
        [Bands(by="instances"), Bands(names=("few", "some", "many"))],
        ids=["by instances", "other names"],
    )
    def test_auto_computes_where_the_field_is_about_something_else(
        self, bands: Bands, store_of: Callable[..., AnnotationStore]
    ) -> None:
        by_field = store_of(training_set(COUNTS, frequency=FREQUENCY))
        by_counts = store_of(training_set(COUNTS))
        expected = class_statistics(by_counts, bands).class_band.tolist()
        assert class_statistics(by_field, bands).class_band.tolist() == expected

    @pytest.mark.parametrize("frequency", [["f"] * 5 + [None], [None] * 6])
    def test_a_field_that_some_classes_lack_is_none(
        self, frequency: list[Any], store_of: Callable[..., AnnotationStore]
    ) -> None:
        store = store_of(training_set(COUNTS, frequency=frequency))
        assert class_statistics(store, Bands()).class_band.tolist() == [0, 0, 0, 1, 1, 2]
        with pytest.raises(DataError, match=r"bands.source=file, but not every category has a `frequency`; give bands"):
            class_statistics(store, Bands(source="file"))

    def test_names_that_are_no_bands(self, store_of: Callable[..., AnnotationStore]) -> None:
        store = store_of(training_set(COUNTS, frequency=["x", "r", "c", "f", "y", "x"]))
        with pytest.raises(DataError, match=r"frequency field has x, y, which are not among bands.names=r, c, f; name"):
            class_statistics(store, Bands(source="file"))

    def test_bands_without_classes(self, store_of: Callable[..., AnnotationStore]) -> None:
        statistics = class_statistics(store_of(training_set(COUNTS, frequency=["f"] * 6)), Bands())
        assert statistics.class_band.tolist() == [2] * 6 and not statistics.low_frequency.any()


class TestWithoutTrainingSet:
    def test_by_the_field(self, store_of: Callable[..., AnnotationStore]) -> None:
        store = store_of(training_set(COUNTS, frequency=FREQUENCY, image_count=[0] * 6))
        assert bands_without_training_set(store, Bands()).tolist() == [2, 1, 0, 0, 1, 2]

    def test_by_the_training_counts_that_the_file_states(self, store_of: Callable[..., AnnotationStore]) -> None:
        stated = {"image_count": [500, 50, 5, 10, 11, 0], "instance_count": [0, 11, 500, 50, 5, 10]}
        store = store_of(training_set(COUNTS, **stated))
        assert bands_without_training_set(store, Bands()).tolist() == [2, 1, 0, 0, 1, 0]
        assert bands_without_training_set(store, Bands(by="instances")).tolist() == [0, 1, 2, 1, 0, 0]

    @pytest.mark.parametrize("fields", [{}, {"frequency": ["r"] * 6}], ids=["no field", "a field about images"])
    def test_for_want_of_better_by_its_own_counts(
        self, fields: Content, store_of: Callable[..., AnnotationStore]
    ) -> None:
        store = store_of(training_set(COUNTS, **fields))
        assert bands_without_training_set(store, Bands(by="instances")).tolist() == [0, 1, 0, 1, 2, 2]

    def test_a_field_that_is_asked_for_and_missing(self, store_of: Callable[..., AnnotationStore]) -> None:
        with pytest.raises(DataError, match=r"bands.source=file"):
            bands_without_training_set(store_of(training_set(COUNTS)), Bands(source="file"))


def test_the_configuration_is_taken_over(tmp_path: Path) -> None:
    section = BandsSection(source="counts", by="instances", names=["a", "b"], edges=[7], low=1)
    source = resolve_data("coco", data_dir=tmp_path, shapes=ShapesSection(), bands=section)
    assert source.bands == Bands(("a", "b"), (7,), "instances", "counts", 1)
