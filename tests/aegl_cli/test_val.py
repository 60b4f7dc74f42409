"""`aegl val`: what it prints and writes, for every kind of scoring."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def scored(tiny_data: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Arguments that score a results file: every object found, but those of the first class taken for the second."""
    from aegl.config import load_config
    from aegl.metrics.rle import encode
    from aegl.tasks import open_source

    overrides = dict(word.split("=", 1) for word in tiny_data)
    store = open_source(load_config(overrides)).open("val")
    ids, names = store.categories.ids, store.categories.names
    records = []
    for row, label in enumerate(np.asarray(store.ann_labels)):
        image = int(store.ann_image[row])
        height, width = (int(v) for v in store.image_sizes[image])
        mask = {"size": [height, width], "counts": encode(store.segmentation(row), height, width).decode()}
        records.append(
            {
                "image_id": int(store.image_ids[image]),
                "category_id": int(ids[max(int(label), 1)]),
                "bbox": store.ann_boxes_xywh[row].tolist(),
                "score": 0.9 if label == 0 else 0.5,
                "segmentation": mask,
            }
        )
    file = tmp_path_factory.mktemp("results") / "results.json"
    file.write_text(json.dumps(records))
    assert names[0] != names[1]
    return (*tiny_data, f"predictions={file}")


def test_the_text_says_what_the_figures_are_and_where_the_files_are(aegl: Any, scored: Any, tmp_path: Path) -> None:
    result = aegl("val", *scored, f"project={tmp_path}", "name=x", "boundary=true")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "lvis protocol, val split, 100 detections per image, percent"
    assert lines[1].split() == ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR"]
    assert [line.split()[0] for line in lines[2:5]] == ["box", "mask", "boundary"]
    bands = lines.index(next(line for line in lines if line.startswith("band")))
    assert [line.split()[0] for line in lines[bands + 1 : bands + 4]] == ["r", "c", "f"]
    written = re.findall(r"\S+/x/\S+", result.stdout)
    assert [Path(path).name for path in written] == ["metrics.json", "per_class.csv", "pr_curves.npz", "report.html"]
    assert all(Path(path).is_file() for path in written)


def test_the_files_hold_classes_curves_and_confusions(aegl: Any, scored: Any, tmp_path: Path) -> None:
    content = json.loads(aegl("val", *scored, f"project={tmp_path}", "--json").stdout)
    metrics = json.loads(Path(content["metrics"]).read_text())
    assert metrics["box"] == content["box"]
    assert (content["max_det"], content["max_det_per"]) == (100, "image")
    with Path(content["per_class"]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == metrics["per_class"]["class"]
    assert [float(row["box_AP"]) > 0.4 for row in rows] == [False, True, True, True, True, True]
    first, second = rows[0]["class"], rows[1]["class"]
    assert metrics["confusions"] == [{"class": first, "predicted": second, "count": 2, "mean_score": 0.9}]
    curves = np.load(content["pr_curves"])
    assert curves["mask_precision50"].shape == (6, 101)


def test_confusions_can_be_left_out(aegl: Any, scored: Any, tmp_path: Path) -> None:
    content = json.loads(aegl("val", *scored, f"project={tmp_path}", "confusions=0", "--json").stdout)
    assert json.loads(Path(content["metrics"]).read_text())["confusions"] == []


@pytest.mark.parametrize(("protocol", "package"), [("lvis", "lvis"), ("coco", "pycocotools")])
def test_official_figures_come_with_their_distance(
    protocol: str, package: str, aegl: Any, scored: Any, tmp_path: Path
) -> None:
    words = ("val", *scored, f"project={tmp_path}", f"protocol={protocol}")
    ours = json.loads(aegl(*words, "--json").stdout)
    official = json.loads(aegl(*words, "scorer=official", "--json").stdout)
    assert official["official"]["package"].startswith(package)
    assert official["official"]["largest_difference"] < 1e-12
    assert "official" not in ours
    assert official["mask"] == pytest.approx(ours["mask"], abs=1e-12)
    text = aegl(*words, "scorer=official").stdout
    assert re.search(rf"figures of {package} \S+; aegl's differ by \S+ at most", text)


def test_where_the_package_disagrees_its_figures_stand_and_the_largest_difference_is_told(
    aegl: Any, scored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aegl.metrics import official

    def disagree(_store: object, _table: object, ours: Any, **_: object) -> official.Official:
        off = {"bbox": 0.25, "segm": 0.125}[ours.iou_type]
        return official.Official("judge 1.0", {"AP": ours.summary["AP"] - off}, ours.precision)

    words = ("val", *scored, f"project={tmp_path}")
    ours = json.loads(aegl(*words, "--json").stdout)
    monkeypatch.setattr(official, "run_official", disagree)
    found = json.loads(aegl(*words, "scorer=official", "--json").stdout)
    assert found["official"] == {"package": "judge 1.0", "largest_difference": pytest.approx(0.25)}
    assert found["box"] == ours["box"] | {"AP": ours["box"]["AP"] - 0.25}
    assert found["mask"] == ours["mask"] | {"AP": ours["mask"]["AP"] - 0.125}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("scorer=official", "protocol=lvis_fixed"), ["scorer=official", "protocol=lvis_fixed", "no official package"]),
        (("scorer=official", "protocol=lvis_pooled"), ["scorer=official", "protocol=lvis_pooled"]),
        (("scorer=official", "boundary=true"), ["scorer=official", "boundary=true"]),
        (("scorer=mine",), ["scorer=mine", "aegl, official"]),
        (("protocol=boundary",), ["protocol=boundary", "lvis_fixed"]),
    ],
)
def test_what_cannot_be_is_refused_before_a_folder_is_made(
    words: tuple[str, ...], named: list[str], aegl: Any, refused: Any, scored: Any, tmp_path: Path
) -> None:
    refused(aegl("val", *scored, f"project={tmp_path / 'runs'}", *words), *named)
    assert not (tmp_path / "runs").exists()


def test_a_model_is_scored_without_a_limit_per_image_only_as_far_as_it_has_none(
    aegl: Any, best: Path, tmp_path: Path
) -> None:
    result = aegl("val", f"weights={best}", f"project={tmp_path}", "protocol=lvis_fixed", "max_det=7")
    assert result.exit_code == 0, result.stderr
    assert "lvis_fixed protocol, val split, 10,000 detections per class, percent" in result.stdout
    assert "the model keeps max_det=7 per image" in result.stderr


def test_a_model_is_evaluated_even_if_the_training_split_is_broken(
    aegl: Any, best: Path, tiny_data: tuple[str, ...], tmp_path: Path
) -> None:
    from aegl.config import load_config
    from aegl.tasks import open_source

    val = open_source(load_config(dict(word.split("=", 1) for word in tiny_data))).open("val").source
    (tmp_path / "train.json").write_text("{")
    (tmp_path / "my.yaml").write_text(f"path: .\ntrain: train.json\nval: {val}\nimages: {val.parent}\n")
    words = ("val", f"weights={best}", f"data={tmp_path / 'my.yaml'}", f"project={tmp_path / 'runs'}", "--json")
    result = aegl(*words)
    assert result.exit_code == 0, result.stderr
    assert "figures per class go without training counts" in result.stderr and "train.json" in result.stderr
    metrics = json.loads(Path(json.loads(result.stdout)["metrics"]).read_text())
    assert metrics["per_class"]["train_images"] == [None] * 6
