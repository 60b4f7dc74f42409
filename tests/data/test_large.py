"""What must hold at the size of LVIS, on files shaped like it: a sound file, an exact store, bounded memory."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from aegl.config.sections import BandsSection, ShapesSection
from aegl.data.build import build_store
from aegl.data.check import check_source
from aegl.data.source import resolve_data
from aegl.progress import SilentProgress

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_annotations", BENCHMARKS / "make_annotations.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def file(maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "lvis_like.json"
    maker.make(path, 300)
    return path


def test_the_synthetic_file_is_sound_and_shaped_like_lvis(file: Path, tmp_path: Path) -> None:
    source = resolve_data(str(file), data_dir=tmp_path, shapes=ShapesSection(), bands=BandsSection())
    report = check_source(source, progress=SilentProgress())["splits"]["train"]
    assert set(report["by_kind"]) == {"missing images"} and report["images"] == 300 and report["classes"] == 1203
    store = source.open("train")
    assert store.federated and any(len(store.not_exhaustive_labels(i)) for i in range(300))
    counts = np.bincount(store.ann_labels, minlength=1203)
    assert counts.min() == 1 and counts.max() > 100


def test_the_same_arguments_give_the_same_bytes(maker: ModuleType, file: Path, tmp_path: Path) -> None:
    maker.make(tmp_path / "again.json", 300)
    maker.make(tmp_path / "other.json", 300, seed=1)
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes() != (tmp_path / "other.json").read_bytes()


def test_the_store_holds_what_json_reads(file: Path, tmp_path: Path) -> None:
    store = build_store(file, cache_dir=tmp_path)
    content = json.loads(file.read_text())
    by_id = {annotation["id"]: annotation for annotation in content["annotations"]}
    assert store.num_annotations == len(by_id)
    for row in range(0, store.num_annotations, 7):
        given = by_id[int(store.ann_ids[row])]
        assert store.image_ids[store.ann_image[row]] == given["image_id"]
        assert store.categories.ids[store.ann_labels[row]] == given["category_id"]
        assert store.ann_boxes_xywh[row].tolist() == given["bbox"] and store.ann_areas[row] == given["area"]
        assert [polygon.reshape(-1).tolist() for polygon in store.segmentation(row) or []] == given["segmentation"]


PEAK = """
import json, resource, sys
from aegl.data.build import build_store
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
build_store(sys.argv[1], cache_dir=sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_polygons(maker: ModuleType, tmp_path: Path) -> None:
    """The whole file as Python objects would take six times its size."""
    path = tmp_path / "larger.json"
    maker.make(path, 3000)
    done = subprocess.run([sys.executable, "-c", PEAK, str(path), str(tmp_path / "c")], check=True, capture_output=True)
    grown, size = int(done.stdout) * 1024, path.stat().st_size
    assert size > 25e6
    assert grown < 4 * size  # mapped pages of the file, of the spool and of blocks included
