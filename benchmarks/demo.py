"""`make demo`: the main job on the embedded data, end to end, on two CPU cores.

Trains one start network, then three detectors from it with the same budget (softmax CE, softmax CE with repeat-factor
sampling, FBS-AEGL with repeat-factor sampling), evaluates them, exports the last one to ONNX, evaluates that file, and
prints one table. Every step is a command of the `aegl` command line, shown before it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMON = ["data=shapes_lt", "model=mini", "exist_ok=true", "workers=0"]
START_ITERATIONS = 700
TUNE_ITERATIONS = 450
RFS = ["sampler=rfs", "rfs_threshold=0.013"]
# The gates of FBS-AEGL act on trained scores; see docs/methods.md for what each of these options does here.
FBS_AEGL = ["loss.weight_factor_normalization=mean_one", "loss.gate_start=0.5"]


@dataclass(frozen=True)
class Contender:
    """One row of the table."""

    label: str
    name: str
    arguments: tuple[str, ...]


CONTENDERS = (
    Contender("softmax CE, random sampling", "ce", ("method=softmax_ce", "sampler=random")),
    Contender("softmax CE, RFS", "ce_rfs", ("method=softmax_ce", *RFS)),
    Contender("FBS-AEGL, RFS", "fbs_aegl_rfs", ("method=fbs_aegl", *RFS, *FBS_AEGL)),
)


def run(arguments: list[str], log: Path) -> dict[str, Any]:
    """Run one `aegl` command, its progress going to ``log``, and return its result."""
    print("  $ aegl " + " ".join(arguments), flush=True)
    command = [str(Path(sys.executable).with_name("aegl")), *arguments, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as stderr:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, env=environment, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"that command failed with exit code {done.returncode}; the end of {log}:\n" + tail(log))
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file."""
    return "\n".join(log.read_text().splitlines()[-lines:])


def train(contender: Contender, start: Path, project: Path, logs: Path) -> dict[str, Any]:
    """Train one contender from the start network; the run ends with an evaluation."""
    arguments = ["train", *COMMON, *contender.arguments, f"iterations={TUNE_ITERATIONS}", f"weights={start}"]
    arguments += ["reset_classifier=true", f"project={project}", f"name={contender.name}"]
    return run(arguments, logs / f"{contender.name}.log")


def row(label: str, metrics: dict[str, Any]) -> str:
    """One line of the table: box and mask AP, and mask AP by frequency band, in percent."""
    figures = [("box", "AP"), ("mask", "AP"), ("mask", "APr"), ("mask", "APc"), ("mask", "APf")]
    cells = (f"{100 * metrics[kind][name]:7.1f}" for kind, name in figures)
    return f"  {label:<34}" + " ".join(cells)


def verdict(ce: dict[str, Any], ce_rfs: dict[str, Any], fbs: dict[str, Any]) -> str:
    """What the numbers show, in words that follow from the numbers."""

    def mask(metrics: dict[str, Any], figure: str) -> float:
        return 100 * float(metrics["mask"][figure])

    def compare(figure: str, against: dict[str, Any], name: str) -> str:
        difference = mask(fbs, figure) - mask(against, figure)
        word = "above" if difference > 0 else "below"
        return f"{abs(difference):.1f} points {word} {name}"

    return "\n".join(
        [
            "What this shows (one seed, one small data set, a short budget: directions, not a ranking of methods):",
            f"  - Mask AP of rare classes: FBS-AEGL with RFS is {compare('APr', ce, 'plain softmax CE')},",
            f"    and {compare('APr', ce_rfs, 'softmax CE with RFS')}.",
            f"  - Mask AP of all classes: FBS-AEGL with RFS is {compare('AP', ce, 'plain softmax CE')},",
            f"    and {compare('AP', ce_rfs, 'softmax CE with RFS')}.",
        ]
    )


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path("demo_runs"), help="folder of the runs")
    project = parser.parse_args().project
    logs = project / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()

    print("1. The data: shapes_lt, 100 classes with 800 to 1 training objects", flush=True)
    run(["data", "stats", "data=shapes_lt"], logs / "data.log")

    print("2. The common start: a network trained with sigmoid cross-entropy", flush=True)
    arguments = ["train", *COMMON, "method=sigmoid_bce", f"iterations={START_ITERATIONS}", f"project={project}"]
    start = run([*arguments, "name=start"], logs / "start.log")

    print(f"3. Three detectors, each {TUNE_ITERATIONS} steps from that start with a fresh classifier", flush=True)
    with ThreadPoolExecutor(max_workers=2) as pool:  # one per core
        results = list(pool.map(lambda c: train(c, Path(start["last"]), project, logs), CONTENDERS))
    metrics = [result["metrics"] for result in results]

    print("4. The ONNX file of the FBS-AEGL detector", flush=True)
    exported = run(["export", "--format", "onnx", f"weights={results[-1]['best']}"], logs / "export.log")
    onnx = run(
        ["val", f"weights={exported['file']}", f"project={project}", "name=onnx", "exist_ok=true"], logs / "onnx.log"
    )

    print("\n  percent                             box AP mask AP     APr     APc     APf")
    for contender, figures in zip(CONTENDERS, metrics, strict=True):
        print(row(contender.label, figures))
    print(row("FBS-AEGL, RFS: the ONNX file", onnx))
    print("  (LVIS protocol, balanced val split; APr, APc, APf: mask AP of rare, common, frequent classes)\n")
    print(verdict(*metrics))
    gap = max(abs(onnx[kind]["AP"] - metrics[-1][kind]["AP"]) for kind in ("box", "mask"))
    print(f"  - ONNX against PyTorch: AP differs by {100 * gap:.3f} points.\n")
    print("What was made:")
    for result in results:
        print(f"  {result['run']}")
    print(f"  {exported['file']}\n  {exported['report']}")
    print(f"\nDone in {(time.perf_counter() - began) / 60:.1f} minutes.")


if __name__ == "__main__":
    main()
