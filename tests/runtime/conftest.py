"""The small exported detectors of the export tests, and pictures of every kind to show them."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

SMALL_MODELS = Path(__file__).parents[1] / "export" / "conftest.py"
SIZES = {
    "landscape.png": (60, 90),
    "larger.png": (200, 280),
    "portrait.png": (120, 70),
    "square.png": (64, 64),
    "tiny.png": (9, 11),
    "wide.png": (20, 300),
}
"""Height and width."""


@pytest.fixture(scope="session")
def exported() -> ModuleType:
    spec = importlib.util.spec_from_file_location("exported_small_models", SMALL_MODELS)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm, where this process runs the export tests too, knows its Swin already
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def plain(exported: ModuleType, shared_folder: Path) -> Any:
    """Any size."""
    return exported.make_case(shared_folder, "plain", exported.small_model())


@pytest.fixture(scope="session")
def windowed(exported: ModuleType, shared_folder: Path) -> Any:
    """64 by 96 pixels."""
    model = exported.small_model(
        7, "fbs_aegl", backbone={"name": "test_swin"}, mask={"predictor": "cosine"}, nms_candidates=26
    )
    return exported.make_case(shared_folder, "windowed", model, dynamic=False)


@pytest.fixture(scope="session", params=["plain", "windowed"])
def case(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def pictures(exported: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of many sizes, modes and one that is to be turned."""
    folder = tmp_path_factory.mktemp("pictures")
    scenes = {name: exported.scene(seed, size).transpose(1, 2, 0) for seed, (name, size) in enumerate(SIZES.items())}
    images = {name: Image.fromarray(np.ascontiguousarray(scene)) for name, scene in scenes.items()}
    usual = images["landscape.png"]
    images |= {"grey.png": usual.convert("L"), "alpha.png": usual.convert("RGBA"), "ink.tiff": usual.convert("CMYK")}
    images["palette.png"] = usual.convert("P")
    images["sixteen.png"] = Image.fromarray(np.asarray(usual.convert("L")).astype(np.uint16) * 257)
    for name, image in images.items():
        image.save(folder / name)
    turned = usual.getexif()
    turned[0x0112] = 6  # by a quarter
    usual.save(folder / "turned.jpg", exif=turned)
    return {path.name: path for path in sorted(folder.iterdir())}
