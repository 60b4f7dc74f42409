"""How much faster do N processes train than one, with the same images for each of them?

    python benchmarks/bench_ranks.py --processes 1 2 4 8 --per-process 2 data=lvis_v1 model=r50 schedule=2x amp=bf16

Each row is a run of `torchrun ... aegl train` of its own, of `--steps` steps. Its speed is that of its last log record,
hence without start and warm-up; the efficiency is images per second of each process over that of the first row. With
several GPUs there is one for each process. On a CPU it is a smoke test: the processes share the cores.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path


def images_per_second(processes: int, per_process: int, steps: int, keys: Sequence[str], folder: Path) -> float:
    """Speed of a run of so many processes, in the second half of its steps."""
    words = [
        *(sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"),
        *("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--module", "aegl_cli", "train"),
        *(f"batch={processes * per_process}", f"iterations={steps}", f"log_every={steps // 2}", "report=false"),
        *(f"project={folder}", f"name=of{processes}", *keys),
    ]
    print("  $ " + " ".join(["torchrun", *words[3:]]), flush=True)
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    log = folder / f"of{processes}.log"
    with log.open("w") as output:
        done = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode:
        end = "\n".join(log.read_text().splitlines()[-15:])
        raise SystemExit(f"that command failed with exit code {done.returncode}; the end of its output:\n{end}")
    with (folder / f"of{processes}" / "results.csv").open() as file:
        speeds = [row["images_per_second"] for row in csv.DictReader(file) if row["images_per_second"]]
    return float(speeds[-1])


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--per-process", type=int, default=2, help="images of a step for each process")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("keys", nargs="*", help="configuration keys, as key=value; default: shapes_lt on mini")
    options = parser.parse_args()
    keys = options.keys or ["data=shapes_lt", "model=mini", "workers=0"]
    rows: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.processes:
            rows.append((count, images_per_second(count, options.per_process, options.steps, keys, Path(folder))))
    first = rows[0][1] / rows[0][0]
    print("\n| processes | images per second | of each | efficiency |\n|---:|---:|---:|---:|")
    for count, speed in rows:
        print(f"| {count} | {speed:.1f} | {speed / count:.1f} | {speed / count / first:.0%} |")


if __name__ == "__main__":
    main()
