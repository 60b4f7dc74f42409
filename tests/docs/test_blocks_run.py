"""Every block of README.md, CONTRIBUTING.md and docs/ is run, page by page; ``rehearsal.py`` says with what."""

from __future__ import annotations

import json
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

from .pages import PAGES, Block, Step, blocks, commands, file_of, name_of, steps
from .rehearsal import DATA, GIVEN, NOT_RUN, REPLACED, TRAINING, command_of_torchrun, reason_not_to_run, shortened
from .stage import Failed, NotInstalled, copied, stage

BLOCKS = {name_of(page): list(blocks(page)) for page in PAGES}
STEPS = {page: [step for block in found for step in steps(block)] for page, found in BLOCKS.items()}
PICTURES = ("photo.jpg", "a.jpg", "b.png")
EVERYWHERE = ("datasets", "my_data", "photos", *PICTURES, "interruption.py")
"""What there is on every page's stage; the last is a callback of the run that was interrupted."""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that pages take for granted: data sets, pictures, runs, a trained model and its ONNX file."""
    folder = tmp_path_factory.mktemp("library")
    _write_data(tmp_path_factory.mktemp("shapes"), folder)
    # What several pages train and export, so that it is traced once.
    keys = ["data=shapes_lt", *(f"{key}={value}" for key, value in {**TRAINING, **DATA}.items())]
    with stage(folder) as at_work:
        for seed in range(3):
            at_work.aegl("train", *keys, f"seed={seed}")
        at_work.aegl("train", *keys, "name=my_run", interrupted=True)
        copied(folder / "runs" / "train" / "weights" / "best.pt", folder / "best.pt")
        at_work.aegl("export", "weights=best.pt")
    return folder


def _write_data(cache: Path, folder: Path) -> None:
    """Small data in the places where ``data=lvis_v1`` and ``data=my_data/`` look for it, and pictures."""
    from PIL import Image

    from aegl.data.shapes_lt import generate

    sizes = {key.partition(".")[2]: value for key, value in DATA.items()}
    lvis = generate(cache, **sizes, seed=1)
    mine = generate(cache, **{**sizes, "classes": 5}, seed=2)
    copied(mine, folder / "my_data")
    for split in ("train", "val"):
        content = json.loads((lvis / f"{split}.json").read_text(encoding="utf-8"))
        for image in content["images"]:
            name = Path(image.pop("file_name")).name
            image["coco_url"] = f"http://images.cocodataset.org/{split}2017/{name}"
        home = folder / "datasets" / "lvis_v1" / f"lvis_v1_{split}.json"
        home.parent.mkdir(parents=True, exist_ok=True)
        home.write_text(json.dumps(content), encoding="utf-8")
        copied(lvis / "images" / split, folder / "datasets" / "coco" / f"{split}2017")
    for name, picture in zip(PICTURES, sorted((mine / "images" / "val").glob("*.jpg")), strict=True):
        Image.open(picture).save(folder / name)
        copied(picture, folder / "photos" / picture.name)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, found in STEPS.items() if found])
def test_the_blocks_of_a_page_run(page: str, library: Path, tmp_path: Path) -> None:
    for name in (*EVERYWHERE, *GIVEN.get(page, ())):
        copied(library / name, tmp_path / name)
    for block in BLOCKS[page]:
        if name := file_of(block):
            (tmp_path / name).write_text(block.text, encoding="utf-8")
    failures, missing = [], set()
    with stage(tmp_path) as at_work:
        for step, following in zip(STEPS[page], [*STEPS[page][1:], None], strict=True):
            if reason_not_to_run(step.text) is None:
                try:
                    # Nothing can be gone on with that was not interrupted.
                    at_work.run(step, interrupted=following is not None and "resume=true" in following.text)
                except Failed as error:
                    failures.append(f"{step.place}: {error}")
                except NotInstalled as error:
                    missing.add(str(error))
    assert not failures, "\n\n".join(failures)
    if missing:
        pytest.skip(f"all ran but what needs {', '.join(sorted(missing))}, not installed here")


def test_what_is_not_run_and_what_is_replaced_stands_on_a_page() -> None:
    texts = [step.text for found in STEPS.values() for step in found]
    assert [part for part in NOT_RUN if not any(re.match(part, text) for text in texts)] == []
    assert [part for part, _ in REPLACED if not any(re.search(part, text) for text in texts)] == []


def test_pages_are_given_only_what_there_is() -> None:
    assert GIVEN.keys() <= STEPS.keys()
    assert all(
        any(Path(name).name in step.text for step in STEPS[page]) for page, names in GIVEN.items() for name in names
    )


def test_no_command_hides_in_a_block_that_is_not_run() -> None:
    for block in (block for found in BLOCKS.values() for block in found if block.language == "text"):
        excerpt = "..." in block.text  # shows what a command is like, and is none
        assert excerpt or not re.search(r"^(\$ )?(aegl|torchrun|python|pip) ", block.text, re.MULTILINE), block


def test_files_that_pages_show_are_used_on_them() -> None:
    for page, found in BLOCKS.items():
        for name in filter(None, map(file_of, found)):
            used = [step for step in STEPS[page] if name in step.text.partition("\n")[0]]
            assert used, f"{page}: nothing on the page uses {name}"


def test_extras_that_pages_install_exist() -> None:
    extras = set(metadata("aegl").get_all("Provides-Extra") or ())
    installed = {
        extra
        for found in STEPS.values()
        for step in found
        for named in re.findall(r"(?:aegl|\.)\[([\w,]+)\]", step.text)
        for extra in named.split(",")
    }
    assert installed and installed <= extras


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("command", "aegl train data=no_such_data/ model=r50", "no_such_data"),
        ("command", "aegl val weights=none.pt", "exit code 2"),
        ("command", "python -c 'raise SystemExit(3)'", "exit status 3"),
        ("command", "aegl serve weights=none.onnx", "none.onnx"),
        ("python", "from aegl import Detector\nDetector('mini').val()", "not trained"),
        ("python", "print(name)", "NameError"),
        ("script", "#!/bin/bash\nsrun torchrun --module aegl_cli val weights=none.pt", "none.pt"),
        ("command", "torchrun --no-such-option --module aegl_cli train", "no-such-option"),
        ("image", "FROM somewhere", "nobody knows"),
    ],
)
def test_what_does_not_work_is_noticed(kind: str, text: str, message: str, tmp_path: Path) -> None:
    with stage(tmp_path) as at_work, pytest.raises(Failed, match=message):
        at_work.run(Step("page:1", kind, text))


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with stage(tmp_path) as at_work, pytest.raises(NotInstalled, match="no-such-program"):
        at_work.run(Step("page:1", "command", "no-such-program --help"))


def test_the_command_that_torchrun_starts_is_run() -> None:
    words = ["--nnodes", "2", "--nproc-per-node=8", "-m", "aegl_cli", "train", "batch=4"]
    assert command_of_torchrun(words) == ["train", "batch=4"]


def test_commands_of_a_block_are_all_found() -> None:
    text = "# a comment\n$ aegl val \\\n    conf=0.1   # and another\n\necho '#1'\n"
    assert commands(text) == ["aegl val conf=0.1", "echo '#1'"]
    (container,) = steps(Block("page", 1, "yaml", "a:\n  - args: [aegl, serve, port=0]\n    other: [x, aegl]\n"))
    assert container.text == "aegl serve port=0"
    assert list(steps(Block("page", 1, "text", "aegl val"))) == []
    with pytest.raises(ValueError, match="language perl"):
        list(steps(Block("page", 1, "perl", "die")))


def test_only_what_makes_a_command_long_is_changed() -> None:
    assert shortened(["train", "data=x", "method=seesaw", "epochs=12", "lr=0.1"])[:4] == [
        "train",
        "data=x",
        "method=seesaw",
        "lr=0.1",
    ]
    assert shortened(["train", "resume=true", "name=x"]) == ["train", "resume=true", "name=x"]
    assert shortened(["predict", "source=x"]) == ["predict", "source=x", "conf=0.0001"]
    assert reason_not_to_run("aegl train") is None and reason_not_to_run("pip install x") is not None
