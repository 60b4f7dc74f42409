"""The page of a run and of several: what stands in it, and how it behaves in a browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aegl.errors import AeglError, ConfigError, DataError
from aegl.progress import SilentProgress
from aegl.tasks import report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
CLASSES = 1203
Write = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Write:
    """Writes the folder of an evaluated run of 1203 classes, one of them with a hostile name."""

    def write(name: str, ap: float = 0.2, **other: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        band = np.repeat(["r", "c", "f"], [337, 461, 405]).tolist()
        names = [f"class {k:04}" for k in range(CLASSES)]
        names[7] = "</script><b>evil</b>"
        figures = {"AP": ap, "APr": 0.1, "APc": 0.2, "APf": 0.3, "AP50": 0.4, "AP75": None, "AR": 0.5}
        counted = {"edges": [0.0, 0.5, 1.0], "per_band": {b: {"true": [1, 30], "false": [70, 9]} for b in "rcf"}}
        metrics = {
            "protocol": "lvis", "split": "val", "bands": ["r", "c", "f"], "max_det": 300, "max_det_per": "image",
            "box": figures, "mask": figures, "ground_truth_hash": "a" * 64,
            "counts": {"classes": CLASSES, "images": 19809, "annotations": 244707, "detections": 9},
            "per_class": {
                "class": names, "band": band, "train_instances": rng.integers(1, 50552, CLASSES).tolist(),
                "gt": rng.integers(0, 90, CLASSES).tolist(), "detections": rng.integers(0, 900, CLASSES).tolist(),
                "box_AP": [None, *rng.random(CLASSES - 1).tolist()], "mask_AP": rng.random(CLASSES).tolist(),
            },
            "scores": {"box": counted, "mask": counted},
            "confusions": [{"class": "ant", "predicted": "<i>bee", "count": 4, "mean_score": 0.5}],
        }  # fmt: skip
        (folder / "metrics.json").write_text(json.dumps(metrics | other))
        (folder / "args.yaml").write_text("data: shapes_lt\nlr: 0.01\n")
        np.savez(
            folder / "pr_curves.npz", recall=np.linspace(0, 1, 101),
            mask_precision=rng.random((CLASSES, 101), dtype=np.float32),
        )  # fmt: skip
        Image.effect_noise((90, 60), 60).convert("RGB").save(tmp_path / "picture.png")
        thing = {"label": 3, "box": [10, 10, 30, 20], "mask": None}
        entry = {
            "image_id": 5, "file": str(tmp_path / "picture.png"), "height": 60, "width": 90, "found": 1,
            "objects": [thing], "detections": [{**thing, "score": 0.7}],
        }  # fmt: skip
        gone = {**entry, "image_id": 6, "file": str(tmp_path / "gone.png")}
        examples = {"best": [entry], "worst": [gone], "rarest": [entry, {**entry, "file": None}]}
        (folder / "examples.json").write_text(json.dumps(examples))
        return folder

    return write


def written(*folders: Path, **keys: Any) -> str:
    result = report({"runs": [str(folder) for folder in folders], **keys}, SilentProgress())
    return Path(result["report"]).read_text("utf-8")


def test_one_file_that_holds_everything_and_is_small(run: Write) -> None:
    page = written(run("train"))
    assert len(page.encode()) < 5_000_000
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)  # nothing outside of it is needed
    for text in (
        "lvis protocol, val split: 19,809 images",
        "aegl val cfg=",
        "lr: 0.01",
        "chart-class_ap",
        "chart-scores",
    ):
        assert text in page
    assert page.count("<img ") == 4  # two images whose file is there, ground truth and detections


def test_what_classes_are_called_does_no_harm(run: Write) -> None:
    page = written(run("train"))
    assert "<b>evil" not in page and "<i>bee" not in page and "&lt;i&gt;bee" in page


def test_two_runs_side_by_side(run: Write, tmp_path: Path) -> None:
    first, second = run("a/train"), run("b/train", ap=0.9)
    page = written(first, second)
    assert (first / "comparison.html").is_file() and not (first / "report.html").is_file()
    assert "90.0 (+70.0)" in page and "b/train box AP" in page
    assert page.count("<img ") == 3  # the image that is the same for all: ground truth and both runs


def test_what_cannot_be_shown_is_told(run: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runs: not given"):
        report({}, SilentProgress())
    with pytest.raises(DataError, match="not evaluated on the same ground truth"):
        written(run("a"), run("b", ground_truth_hash="b" * 64))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "args.yaml").write_text("")
    with pytest.raises(DataError, match="the run was never evaluated"):
        written(tmp_path / "begun")
    (tmp_path / "file").write_text("")
    with pytest.raises(AeglError, match="cannot be written"):
        written(run("c"), output=str(tmp_path / "file" / "page.html"))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
class TestInABrowser:
    @pytest.fixture(scope="class")
    def browser(self) -> Iterator[Any]:
        sync_api = pytest.importorskip("playwright.sync_api")
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=BROWSER, args=OPTIONS)
            yield browser
            browser.close()

    @pytest.fixture
    def page(self, browser: Any, run: Write, request: pytest.FixtureRequest) -> Iterator[Any]:
        """Open at the size of the parameter; an error in the page and any request fail the test."""
        width, scheme = getattr(request, "param", (1200, "light"))
        folder = run("train")
        written(folder)
        wrong: list[str] = []
        with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
            page = context.new_page()
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda message: wrong.append(message.text))
            page.on("request", lambda sent: None if sent.url.startswith(("file:", "data:")) else wrong.append(sent.url))
            page.goto((folder / "report.html").as_uri())
            yield page
            assert not wrong

    def test_the_table_sorts_and_filters(self, page: Any) -> None:
        names, values = page.locator("#class-table tbody tr td:first-child"), "#class-table tbody tr td:nth-child(3)"
        counts = [int(text) for text in page.locator(values).all_inner_texts()]
        assert len(counts) == CLASSES and counts == sorted(counts, reverse=True)
        page.get_by_role("button", name="class", exact=True).click()
        assert names.first.inner_text() == "</script><b>evil</b>"
        page.get_by_role("button", name="box AP").click()
        assert page.locator("#class-table tbody tr:last-child td:nth-child(5)").inner_text() == "–"
        page.get_by_label("Find a class").fill("class 000")
        assert page.locator("#count").inner_text() == f"9 of {CLASSES} classes"
        page.get_by_label("Find a class").fill("")
        page.get_by_label("rare").uncheck()
        assert page.locator("#count").inner_text() == f"{461 + 405} of {CLASSES} classes"

    @pytest.mark.parametrize("page", [(390, "dark"), (1200, "dark"), (390, "light")], indirect=True)
    def test_it_fits_phones_and_dark_rooms(self, page: Any) -> None:
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        loaded = "[...document.images].every((image) => image.complete && image.naturalWidth > 0)"
        assert page.evaluate(loaded)
        dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(13, 17, 23)") == dark
