"""`make demo`: the main job on the embedded data, end to end, on two CPU cores.

Trains one start network, then detectors from it with the same budget (softmax CE with and without repeat-factor
sampling, FBS-AEGL, and its own baseline sigmoid CE as a control), evaluates them, exports FBS-AEGL to ONNX, evaluates
that file, and prints one table. Every step is a command of the `aegl` command line, shown as it runs. At the end it
compares the file with PyTorch on every val image, and fails if they are not the same model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps import figures_table, run

from aegl.data.dataset import DetectionDataset, collate
from aegl.data.preprocess import Preprocess
from aegl.data_tasks import open_source
from aegl.export.parity import ParityReport, check_parity
from aegl.progress import SilentProgress
from aegl.trained import open_trained

COMMON = ["data=shapes_lt", "model=mini", "exist_ok=true", "workers=0"]
START_ITERATIONS = 700
TUNE_ITERATIONS = 450
LARGEST_GAP = 0.001
"""Between the AP of the ONNX file and of PyTorch: a tenth of a point."""
RFS = ("sampler=rfs", "rfs_threshold=0.013")
# What this small budget needs, see docs/methods.md: the gates wait for trained scores, they open early enough to push
# wrong classes down (mu=0.1 is a row of the paper's Table 2), and the weight factor does not shrink the loss.
FBS_AEGL = ("loss.mu=0.1", "loss.gate_start=0.5", "loss.weight_factor_normalization=mean_one")

Metrics = Mapping[str, Any]


@dataclass(frozen=True)
class Contender:
    """One row of the table."""

    label: str
    name: str
    arguments: tuple[str, ...]


OURS = Contender("FBS-AEGL, RFS", "fbs_aegl_rfs", ("method=fbs_aegl", *RFS, *FBS_AEGL))
OTHERS = (
    Contender("softmax CE, random sampling", "ce", ("method=softmax_ce", "sampler=random")),
    Contender("softmax CE, RFS", "ce_rfs", ("method=softmax_ce", *RFS)),
    Contender("sigmoid CE, RFS (control)", "bce_rfs", ("method=sigmoid_bce", *RFS)),
)


def train_start(project: Path, logs: Path) -> Path:
    """Train the network that every contender starts from; in place of the ImageNet weights of a real recipe."""
    arguments = ["train", *COMMON, "method=sigmoid_bce", f"iterations={START_ITERATIONS}", f"project={project}"]
    return Path(run([*arguments, "name=start"], logs / "start.log")["last"])


def train(contender: Contender, start: Path, project: Path, logs: Path) -> dict[str, Any]:
    """Train one contender from the start network; the run ends with an evaluation."""
    arguments = ["train", *COMMON, *contender.arguments, f"iterations={TUNE_ITERATIONS}", f"weights={start}"]
    arguments += ["stage.reset=box_head.classifier", f"project={project}", f"name={contender.name}"]
    return run(arguments, logs / f"{contender.name}.log")


def verdict(ours: Metrics, others: Mapping[str, Metrics], onnx: Metrics) -> str:
    """What the numbers show, in words that follow from the numbers."""
    lines = ["What this shows (one seed, one small generated data set, a short budget: not a ranking of methods):"]
    for figure, meaning in (("APr", "rare classes"), ("AP", "all classes"), ("APf", "frequent classes")):
        compared = [_difference(ours, metrics, figure) + f" {label}" for label, metrics in others.items()]
        lines.append(f"  - mask AP of {meaning}: {OURS.label} is {'; '.join(compared)}.")
    lines.append(f"  - ONNX against PyTorch: AP differs by {100 * ap_gap(ours, onnx):.3f} points.")
    lines.append(f"  FBS-AEGL ran with {' '.join(FBS_AEGL)}, not with the paper's values of these keys.")
    lines.append("  All started from one network trained with sigmoid CE, and each with a fresh classifier.")
    return "\n".join(lines)


def ap_gap(ours: Metrics, onnx: Metrics) -> float:
    """The larger difference of box and mask AP, as a share."""
    return float(max(abs(onnx[kind]["AP"] - ours[kind]["AP"]) for kind in ("box", "mask")))


def compare_on_val(weights: Path, file: Path) -> ParityReport:
    """Detections of the checkpoint and of the ONNX file on every val image, one image at a time."""
    pytorch, onnx = (
        open_trained({"weights": str(path), "device": "cpu"}, SilentProgress()) for path in (weights, file)
    )
    meta = pytorch.backend.meta
    preprocess = Preprocess(meta.imgsz, meta.max_size, meta.stride, meta.pad_value)
    dataset = DetectionDataset(open_source(pytorch.config).open("val"), preprocess)
    cases = ((f"image {row}", collate([dataset[row]], preprocess).images.numpy()) for row in range(len(dataset)))
    return check_parity(pytorch.backend, onnx.backend, meta, cases=cases)


def require_the_same(gap: float, on_val: ParityReport) -> None:
    """End with an error unless AP and detections of the ONNX file are those of PyTorch."""
    if not gap < LARGEST_GAP:
        raise SystemExit(f"The ONNX file is not the model: AP differs by {100 * gap:.3f} points.")
    if not on_val.passed:
        raise SystemExit(f"The ONNX file is not the model. On the val images: {on_val.headline()}")


def _difference(ours: Metrics, other: Metrics, figure: str) -> str:
    points = round(100 * (ours["mask"][figure] - other["mask"][figure]), 1)
    return "level with" if points == 0 else f"{abs(points)} {'above' if points > 0 else 'below'}"


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path("demo_runs"), help="folder of the runs")
    project = parser.parse_args().project
    logs = project / "logs"
    began = time.perf_counter()

    print("1. The data: shapes_lt, 100 classes with 800 to 1 training objects", flush=True)
    val_file = Path(run(["data", "stats", "data=shapes_lt"], logs / "data.log")["val"]["file"])

    print("2. The common start: a network trained with sigmoid cross-entropy", flush=True)
    start = train_start(project, logs)

    print(f"3. The detectors, each {TUNE_ITERATIONS} steps from that start with a fresh classifier", flush=True)
    contenders = (*OTHERS, OURS)
    with ThreadPoolExecutor(max_workers=2) as pool:  # one per core
        results = list(pool.map(lambda contender: train(contender, start, project, logs), contenders))
    metrics = {contender.label: result["metrics"] for contender, result in zip(contenders, results, strict=True)}
    best = results[-1]["best"]

    print("4. The ONNX file of the FBS-AEGL detector, and a look at some pictures", flush=True)
    exported = run(["export", "--format", "onnx", f"weights={best}"], logs / "export.log")
    again = [f"project={project}", "exist_ok=true"]
    onnx = run(["val", f"weights={exported['file']}", *again, "name=onnx"], logs / "onnx.log")
    some = val_file.parent / "images" / "val" / "*00.jpg"
    pictures = run(["predict", f"weights={best}", f"source={some}", *again, "name=predict"], logs / "predict.log")

    print("\n" + figures_table([*metrics.items(), (f"{OURS.label}: the ONNX file", onnx)]))
    print("percent, LVIS protocol, balanced val split; r, c, f: rare, common, frequent classes\n")
    ours = metrics.pop(OURS.label)
    print(verdict(ours, metrics, onnx))
    print(f"\nThe ONNX file: {exported['parity']['text'].splitlines()[0]}")
    on_val = compare_on_val(Path(best), Path(exported["file"]))
    print(f"On the val images: {on_val.headline()}")
    print("What was made:")
    for path in (*(result["run"] for result in results), pictures["run"], exported["file"], exported["report"]):
        print(f"  {path}")
    print(f"\nDone in {(time.perf_counter() - began) / 60:.1f} minutes.")
    require_the_same(ap_gap(ours, onnx), on_val)


if __name__ == "__main__":
    main()
