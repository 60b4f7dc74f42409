"""The pictures of `docs/figures.md`: trains the runs that they show, draws them with `aegl plot`, and shrinks them.

    python benchmarks/doc_figures.py --data photos/ --backbone-weights path/to/mobilenetv2.pth --output doc_figures

Two runs on the embedded data from a common start network, as `demo.py` does it, and two on photographs with the small
heads of `real_images.py`; all with `track_gradients=true`. Without ``--data`` the figures of photographs are left out.
A run that is finished is not trained again, so that figures can be redrawn. Every step is a command of `aegl`, shown as
it runs. The pictures lie in ``<output>/img`` at the end; put those that are to be shown into ``docs/img``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from demo import FBS_AEGL, RFS, START_ITERATIONS, TUNE_ITERATIONS
from PIL import Image
from real_images import SCHEDULE, SMALL
from steps import run

SHAPES = {"sigmoid_bce": ("method=sigmoid_bce",), "fbs_aegl": ("method=fbs_aegl", *FBS_AEGL)}
PHOTOS = {"softmax_ce": ("method=softmax_ce",), "fbs_aegl": ("method=fbs_aegl", *FBS_AEGL)}
# All methods of each data set, and what is shown of one run only.
TOGETHER = "gradients,training,class_ap,ap_by_count"
PICTURES = "examples"
"""Of the embedded data only: photographs have licences of their own."""
ALONE = "pr_curves,scores,calibration,confusions"
COLORS = 128
"""Charts have few: PNG files of a palette are less than half as large, and look the same."""
PICTURES_WIDTH = 720


def trained(arguments: Sequence[str], folder: Path, logs: Path) -> Path:
    """Train a run into that folder, unless it is there and finished; returns the folder."""
    if not (folder / "train.json").is_file():
        where = [f"project={folder.parent}", f"name={folder.name}", "exist_ok=true"]
        run(["train", *arguments, *where], logs / f"{folder.parent.name}_{folder.name}.log")
    return folder


def shapes(output: Path, logs: Path) -> list[Path]:
    """The runs on the embedded data."""
    common = ["data=shapes_lt", "model=mini", "workers=0"]
    start = [*common, "method=sigmoid_bce", f"iterations={START_ITERATIONS}"]
    network = trained(start, output / "shapes" / "start", logs) / "weights" / "last.pt"
    tune = [*common, *RFS, f"iterations={TUNE_ITERATIONS}", f"val_every={TUNE_ITERATIONS // 3}"]
    tune += [f"weights={network}", "stage.reset=box_head.classifier", "track_gradients=true"]
    return [trained([*tune, *keys], output / "shapes" / name, logs) for name, keys in SHAPES.items()]


def photos(options: argparse.Namespace, logs: Path) -> list[Path]:
    """The runs on photographs."""
    start = [f"data={options.data}", "model=mobilenetv2", f"backbone_weights={options.backbone_weights}"]
    start += ["backbone.mean=0.5", "backbone.std=0.5", *SMALL, *SCHEDULE, f"iterations={options.iterations}"]
    start += ["track_gradients=true", "workers=0"]
    return [trained([*start, *keys], options.output / "photos" / name, logs) for name, keys in PHOTOS.items()]


def draw_runs(runs: Sequence[Path], together: str, output: Path, logs: Path) -> None:
    """Figures of all runs together, and of the first one alone."""
    all_runs = f"runs={','.join(map(str, runs))}"
    run(["plot", all_runs, f"figures={together}", f"output={output}"], logs / "plot.log")
    run(["plot", f"runs={runs[0]}", f"figures={ALONE}", f"output={output}"], logs / "plot.log")


def draw_data(data: str, keys: Sequence[str], output: Path, logs: Path) -> None:
    """Figures of a data set."""
    run(["plot", f"data={data}", "figures=counts,repeat_factors", *keys, f"output={output}"], logs / "plot.log")


def shrink(drawn: Path, output: Path) -> None:
    """Write every figure of a folder small, its name led by the folder's: charts with a palette, pictures as JPEG."""
    output.mkdir(parents=True, exist_ok=True)
    for file in sorted(drawn.glob("*.png")):
        figure = Image.open(file).convert("RGB")
        target = output / f"{drawn.name}_{file.name}"
        if file.stem == PICTURES:
            target = target.with_suffix(".jpg")
            figure.thumbnail((PICTURES_WIDTH, figure.height), Image.Resampling.LANCZOS)
            figure.save(target, quality=75, optimize=True)
        else:
            figure.quantize(COLORS, kmeans=2, dither=Image.Dither.NONE).save(target, optimize=True)
        print(f"  {target}: {target.stat().st_size / 1000:.0f} kB", flush=True)


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="photographs, as `data=` takes them")
    parser.add_argument("--backbone-weights", default="", help="ImageNet weights of timm's mobilenetv2_100, for --data")
    parser.add_argument("--iterations", type=int, default=300, help="steps on photographs")
    parser.add_argument("--output", type=Path, default=Path("doc_figures"))
    options = parser.parse_args()
    if options.data and not options.backbone_weights:
        parser.error("--data needs --backbone-weights")
    began = time.perf_counter()
    logs, plots = options.output / "logs", options.output / "plots"

    print("1. The embedded data", flush=True)
    draw_data("shapes_lt", [RFS[1]], plots / "shapes", logs)
    draw_runs(shapes(options.output, logs), f"{TOGETHER},{PICTURES}", plots / "shapes", logs)
    if options.data:
        print("2. Photographs", flush=True)
        threshold = next(key for key in SCHEDULE if key.startswith("rfs_threshold="))
        draw_data(options.data, [threshold], plots / "photos", logs)
        draw_runs(photos(options, logs), TOGETHER, plots / "photos", logs)
    print("The pictures:", flush=True)
    for drawn in sorted(folder for folder in plots.iterdir() if folder.is_dir()):
        shrink(drawn, options.output / "img")
    print(f"{(time.perf_counter() - began) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
