"""Long-tail methods side by side on the embedded data: same start, same budget, several seeds.

    python benchmarks/compare_shapes.py --project runs/shapes --set linear
    python benchmarks/compare_shapes.py --project runs/shapes --set cosine
    python benchmarks/compare_shapes.py --project runs/shapes --set ablation

Every entry starts from one network (trained with sigmoid or with softmax cross-entropy, `--start`) with a fresh
classifier and trains for the same number of steps; mask predictors are linear for all. The sets are `aegl compare`
calls, so a stopped one goes on where it was, and two sets can run side by side, one per core. Their tables are
<project>/<set>/compare.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from steps import run

COMMON = ["data=shapes_lt", "model=mini", "workers=0", "mask.predictor=linear"]
START_ITERATIONS = 700
TUNE_ITERATIONS = 450
RFS = "+sampler=rfs+rfs_threshold=0.013"
MEAN_ONE = "+loss.weight_factor_normalization=mean_one"
LATE = "+loss.gate_start=0.5"
SETS: dict[str, tuple[str, ...]] = {
    "linear": (
        "softmax_ce+sampler=random",
        f"softmax_ce{RFS}",
        f"norcal{RFS}",
        f"sigmoid_bce{RFS}",
        f"eql{RFS}",
        f"eqlv2{RFS}",
        f"droploss{RFS}",
        f"gol{RFS}",
        f"seesaw{RFS}",
        f"fbs_aegl{RFS}",
        f"fbs_aegl{RFS}{MEAN_ONE}",
        f"fbs_aegl{RFS}{MEAN_ONE}{LATE}+loss.mu=0.1",
        f"fbs_aegl_gol{RFS}",
    ),
    "cosine": (
        f"softmax_ce{RFS}",
        f"sigmoid_bce{RFS}",
        f"eqlv2{RFS}",
        f"droploss{RFS}",
        f"gol{RFS}",
        f"seesaw{RFS}",
        f"fbs_aegl{RFS}",
        f"fbs_aegl{RFS}{MEAN_ONE}",
        f"fbs_aegl_gol{RFS}",
    ),
    "ablation": (
        f"fbs_aegl{RFS}+loss.weight_factor=false",
        f"fbs_aegl{RFS}{MEAN_ONE}+loss.foreground_weight=false",
        f"fbs_aegl{RFS}{MEAN_ONE}+loss.background_weight=false",
        f"fbs_aegl{RFS}{MEAN_ONE}+loss.background_threshold=false",
        f"fbs_aegl{RFS}{MEAN_ONE}+loss.prior_prob=null",
        f"fbs_aegl{RFS}{MEAN_ONE}{LATE}",
        f"fbs_aegl{RFS}{MEAN_ONE}+loss.mu=0.1",
        f"fbs_aegl{RFS}{MEAN_ONE}+loss.foreground_gate=relative",
        f"eqlv2{RFS}+loss.prior_prob=0.01",
    ),
}


def train_start(project: Path, kind: str) -> Path:
    """The network that all entries start from; trained once."""
    name = f"start_{kind}"
    last = project / name / "weights" / "last.pt"
    if not (project / name / "train.json").is_file():
        method = {"sigmoid": "sigmoid_bce", "softmax": "softmax_ce"}[kind]
        words = ["train", *COMMON, f"method={method}", "sampler=random", f"iterations={START_ITERATIONS}"]
        run([*words, f"project={project}", f"name={name}", "exist_ok=true"], project / "logs" / f"{name}.log")
    return last


def main() -> None:
    """Run one set and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--set", choices=SETS, default="linear")
    parser.add_argument("--start", choices=["sigmoid", "softmax"], default="sigmoid")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=TUNE_ITERATIONS)
    options = parser.parse_args()
    classifier = "cosine" if options.set == "cosine" else "linear"
    name = options.set if options.start == "sigmoid" else f"{options.set}_from_softmax"
    start = train_start(options.project, options.start)
    words = ["compare", *COMMON, f"methods={','.join(SETS[options.set])}", f"seeds={options.seeds}"]
    words += [f"box.classifier={classifier}", f"weights={start}", "stage.reset=box_head.classifier"]
    words += [f"iterations={options.iterations}", f"project={options.project}", f"name={name}"]
    run(words, options.project / "logs" / f"{name}.log")
    print((options.project / name / "compare.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
