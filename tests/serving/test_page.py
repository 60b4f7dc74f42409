"""The page in a real browser: a person drops an image, sees what was found, and plays with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aegl.plots.colors import band_colors
from aegl.runtime import Runtime

sync_api = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")]
SIZE = (60, 90)
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def url(toy_file: Path, serving: Any) -> Iterator[str]:
    with serving(toy_file) as server:
        yield server.url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """Open, wide; anything wrong in its script, and any request to another server, fails the test."""
    with browser.new_context(viewport={"width": 1200, "height": 800}) as context:
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on(
            "request", lambda sent: None if sent.url.startswith((url, "blob:", "data:")) else wrong.append(sent.url)
        )
        page.goto(url)
        yield page
        assert not [text for text in wrong if "status of 4" not in text]


@pytest.fixture
def file(tmp_path: Path, picture: Any) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(picture(3, SIZE)).save(path)
    return path


def _drop(page: Any, path: Path) -> None:
    """As if dragged from a folder."""
    data = page.evaluate_handle(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "photo.png", { type: "image/png" }));
            return data;
        }""",
        list(path.read_bytes()),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})


def _list(page: Any) -> list[tuple[str, float]]:
    rows = page.locator("#list li").all()
    return [(row.locator(".name").inner_text(), float(row.locator(".score").inner_text())) for row in rows]


def _expected(file: Path, toy_file: Path, conf: float) -> list[tuple[str, float]]:
    found = Runtime(toy_file, device="cpu", threads=1).predict([file], conf=conf)[0]
    return [(name, round(float(score), 2)) for name, score in zip(found.names, found.scores, strict=True)]


@pytest.mark.parametrize("way", ["drop", "choose"])
def test_an_image_given_to_the_page_shows_what_is_in_it(page: Any, file: Path, toy_file: Path, way: str) -> None:
    _drop(page, file) if way == "drop" else page.set_input_files("#file", file)
    sync_api.expect(page.locator("#status")).to_contain_text("90 × 60 pixels")
    assert _list(page) == _expected(file, toy_file, 0.3)
    assert _list(page)
    assert page.locator("#count").inner_text() == (
        "1 object" if len(_list(page)) == 1 else f"{len(_list(page))} objects"
    )


def test_the_mask_on_the_canvas_is_the_mask_of_the_runtime(page: Any, file: Path, toy_file: Path) -> None:
    """Pixels that differ from the image are those of masks, boxes and labels; below, the mask's alone are looked at."""
    page.set_input_files("#file", file)
    sync_api.expect(page.locator("#status")).to_contain_text("pixels")
    found = Runtime(toy_file, device="cpu", threads=1).predict([file], conf=0.05)[0]
    for row in range(len(found)):
        crop = page.evaluate(
            """(row) => {
                const crop = cropOfMask(shown.found.detections[row].mask);
                return { ...crop, pixels: [...crop.pixels] };
            }""",
            row,
        )
        mask = np.zeros(SIZE, dtype=bool)
        pixels = np.array(crop["pixels"]).reshape(crop["height"], crop["width"])
        mask[crop["y"] : crop["y"] + crop["height"], crop["x"] : crop["x"] + crop["width"]] = pixels
        np.testing.assert_array_equal(mask, found.mask(row))
    colors = page.evaluate("MODEL.bands.map((band) => band.color)")
    assert colors == ["#{:02x}{:02x}{:02x}".format(*color) for color in band_colors(3)]


def test_the_slider_sets_the_threshold(page: Any, file: Path, toy_file: Path) -> None:
    page.set_input_files("#file", file)
    sync_api.expect(page.locator("#status")).to_contain_text("pixels")
    everything = _expected(file, toy_file, 0.05)
    for level in (0.05, sorted(score for _, score in everything)[1] - 0.02, 1.0):
        page.locator("#threshold").fill(f"{level:.2f}")
        assert _list(page) == [each for each in everything if each[1] >= round(level, 2)]
    page.locator("#threshold").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#level").inner_text() == "0.99"


def test_a_band_can_be_hidden(page: Any, file: Path) -> None:
    page.set_input_files("#file", file)
    sync_api.expect(page.locator("#status")).to_contain_text("pixels")
    page.locator("#threshold").fill("0.05")
    before = [name for name, _ in _list(page)]
    page.get_by_label("rare", exact=False).first.uncheck()
    assert [name for name, _ in _list(page)] == [name for name in before if "red" not in name]


def test_names_are_text_whatever_they_hold(page: Any, file: Path) -> None:
    page.set_input_files("#file", file)
    sync_api.expect(page.locator("#status")).to_contain_text("pixels")
    page.locator("#threshold").fill("0.05")
    assert "red </script> thing" in [name for name, _ in _list(page)]


def test_a_refusal_is_shown_and_the_next_image_works(page: Any, file: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "notes.png"
    wrong.write_text("no image")
    page.set_input_files("#file", wrong)
    sync_api.expect(page.locator("#status.wrong")).to_contain_text("no image of a known format")
    page.set_input_files("#file", file)
    sync_api.expect(page.locator("#status:not(.wrong)")).to_contain_text("pixels")


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_the_page_fits_a_phone(page: Any, file: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    page.set_input_files("#file", file)
    sync_api.expect(page.locator("#status")).to_contain_text("pixels")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#canvas").bounding_box()["width"] > 0.5 * min(width, 600)


def test_no_script_but_the_page_s_own_runs(browser: Any, url: str) -> None:
    page = browser.new_page()
    page.goto(url)
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.bad = 1' }))"
    )
    assert page.evaluate("window.bad === undefined && window.MODEL === undefined && MODEL.model === 'toy'")
    page.close()
