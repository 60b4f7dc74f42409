"""The main job on real photographs: fine-tune from ImageNet weights of the backbone, evaluate, predict, export.

Trains one detector per method from the same backbone weights with the same budget, on any LVIS- or COCO-format data:

    python benchmarks/real_images.py --data path/to/train.json --backbone-weights path/to/mobilenetv2.pth
"""

from __future__ import annotations

import argparse
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from steps import figures_table, run

# Small heads and images, no stride-4 level: what two CPU cores can train in half an hour. On a GPU leave all of it out.
SMALL = (
    "imgsz=256", "max_size=416", "train_imgsz=224,256", "neck.channels=96", "neck.first_level=3", "neck.anchor_scale=3",
    "rpn.pre_nms_train=500", "rpn.post_nms_train=300", "rpn.post_nms_test=300", "roi.batch_per_image=64",
    "box.hidden=512", "box.class_agnostic=true", "mask.convs=2", "mask.channels=96", "mask.pool=7",
)  # fmt: skip
SCHEDULE = (
    "batch=8", "optimizer=adamw", "lr=0.0004", "weight_decay=0.05", "norm_decay=false", "lr_schedule=cosine",
    "warmup_iterations=50", "clip_grad=5", "sampler=rfs", "rfs_threshold=0.05", "backbone.frozen_stages=2",
)  # fmt: skip
METHODS = {
    "softmax CE, RFS": ("method=softmax_ce",),
    "sigmoid CE, RFS": ("method=sigmoid_bce",),
    "Seesaw, linear classifier, RFS": ("method=seesaw", "box.classifier=linear", "mask.predictor=linear"),
    "FBS-AEGL as published, RFS": ("method=fbs_aegl",),
    "FBS-AEGL mu=0.1 after half, mean-one, RFS": (
        "method=fbs_aegl", "loss.mu=0.1", "loss.gate_start=0.5", "loss.weight_factor_normalization=mean_one",
    ),
}  # fmt: skip


def train(label: str, method: tuple[str, ...], options: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate one detector, and evaluate its ONNX file."""
    project: Path = options.project
    name = re.sub(r"[^a-z0-9]+", "_", label.lower())
    where = [f"project={project}", "exist_ok=true", f"workers={options.workers}"]
    start = [f"data={options.data}", f"model={options.model}", f"backbone_weights={options.backbone_weights}"]
    if options.mean_std:
        start += [f"backbone.mean={options.mean_std}", f"backbone.std={options.mean_std}"]
    length = [f"iterations={options.iterations}", f"name={name}"]
    trained = run(["train", *start, *method, *SMALL, *SCHEDULE, *where, *length], project / "logs" / f"{name}.log")
    exported = run(["export", f"weights={trained['best']}"], project / "logs" / f"{name}_export.log")
    weights = [f"weights={exported['file']}", f"name={name}_onnx"]
    onnx = run(["val", *weights, *where], project / "logs" / f"{name}_onnx.log")
    return {"label": label, "torch": trained["metrics"], "onnx": onnx, "trained": trained, "exported": exported}


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="training annotations, with val.json beside it, or a data YAML")
    parser.add_argument("--backbone-weights", required=True, help="ImageNet weights of the model's timm backbone")
    parser.add_argument("--model", default="mobilenetv2")
    parser.add_argument("--mean-std", default="0.5", help="pixel mean and std of those weights; empty: timm's own")
    parser.add_argument("--only", default="", help="the methods whose label holds this text, lower case; empty: all")
    parser.add_argument("--iterations", type=int, default=900)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="trainings that run at once, one thread each")
    parser.add_argument("--predict", default="", help="a pattern of pictures for the first method to draw on")
    parser.add_argument("--project", type=Path, default=Path("real_runs"))
    options = parser.parse_args()
    began = time.perf_counter()
    methods = {label: keys for label, keys in METHODS.items() if options.only in label.lower()}
    with ThreadPoolExecutor(max_workers=options.jobs) as pool:
        results = list(pool.map(lambda item: train(*item, options), methods.items()))
    for result in results if options.predict else ():
        found = ["predict", f"weights={result['trained']['best']}", f"source={options.predict}"]
        found += [f"project={options.project}", f"name={Path(result['trained']['run']).name}_predict", "exist_ok=true"]
        run(found, options.project / "logs" / "predict.log")
    rows = [row for r in results for row in ((r["label"], r["torch"]), (f"{r['label']}: ONNX file", r["onnx"]))]
    print("\n" + figures_table(rows))
    print(f"percent; {options.iterations} steps of 8 images, {rows[0][1]['protocol']} protocol, val split")
    for result in results:
        parity = result["exported"]["parity"]["text"].splitlines()[0]
        print(f"{result['label']}: {result['trained']['seconds']:.0f} s of training; {parity}")
    print(f"{(time.perf_counter() - began) / 60:.0f} minutes in all")


if __name__ == "__main__":
    main()
