"""Scoring from files on disk to printed AP: time, memory and agreement of aegl and of other packages, one process each.

    python benchmarks/make_detections.py /tmp/val --images 2000
    python benchmarks/bench_scoring.py /tmp/val --kind segm --contenders aegl lvis faster-coco-eval

The others run in the interpreter of `--python`, which needs their packages (faster-coco-eval is none of the project's).
Memory is the largest total of the resident memory of a contender's processes, shared pages counted once. Differences
are those of the precision arrays, where a contender gives one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

AEGL = """
import sys, time
import numpy as np
from aegl.data.build import build_store
from aegl.metrics import DetectionTable, evaluate
folder, kind, out, cache, protocol = sys.argv[1:]
clock = [time.perf_counter()]
def lap(what):
    clock.append(time.perf_counter())
    print(f"  {what:<12}{clock[-1] - clock[-2]:8.2f} s", flush=True)
store = build_store(folder + "/gt.json", cache_dir=cache)
lap("store")
table = DetectionTable.from_results_json(folder + "/results.json", store)
lap("read")
band = np.arange(len(store.categories.ids)) % 3
result = evaluate(store, table, protocol=protocol, iou_type=kind, class_band=band, band_names=("r", "c", "f"))
lap("score")
bytes_held = sum(v.nbytes for v in (table.image_index, table.label, table.score, table.boxes_xywh_orig))
if table.masks is not None:
    bytes_held += sum(v.nbytes for v in (*table.masks.parts, table.masks.starts, table.masks.lengths))
print(f"  {len(table)} detections are {bytes_held / 2**20:.0f} MB")
print(f"AP {result.summary['AP']:.6f}")
np.save(out, result.precision)
"""
LVIS = """
import logging, sys
import numpy as np
np.float = float  # the package asks for what NumPy dropped in 1.24
from lvis import LVIS, LVISEval, LVISResults
logging.disable(logging.WARNING)
folder, kind, out = sys.argv[1:4]
gt = LVIS(folder + "/gt.json")
judged = LVISEval(gt, LVISResults(gt, folder + "/results.json"), kind)
judged.run()
print(f"AP {judged.results['AP']:.6f}")
np.save(out, judged.eval["precision"])
"""
FASTER = """
import contextlib, io, sys
from faster_coco_eval import COCO, COCOeval_faster
folder, kind = sys.argv[1:3]
with contextlib.redirect_stdout(io.StringIO()):
    gt = COCO(folder + "/gt.json")
    judged = COCOeval_faster(gt, gt.loadRes(folder + "/results.json"), kind, lvis_style=True)
    judged.params.maxDets = [300]
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
print(f"AP {judged.stats_as_dict['AP_all']:.6f}")
"""
PYCOCOTOOLS = """
import contextlib, io, sys
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
folder, kind, out = sys.argv[1:4]
with contextlib.redirect_stdout(io.StringIO()):
    gt = COCO(folder + "/gt.json")
    judged = COCOeval(gt, gt.loadRes(folder + "/results.json"), kind)
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
print(f"AP {judged.stats[0]:.6f}")
np.save(out, judged.eval["precision"][..., -1])
"""
SCRIPTS = {"aegl": AEGL, "lvis": LVIS, "faster-coco-eval": FASTER, "pycocotools": PYCOCOTOOLS}


def memory_of(pid: int) -> int:
    """Bytes held by a process and its children, shared pages in equal parts (Linux)."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    own = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    return own + sum(memory_of(int(child)) for child in children)


class PeakMemory(threading.Thread):
    """Looks at a process every now and then."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak = pid, 0

    def run(self) -> None:
        while Path(f"/proc/{self.pid}").exists():
            self.peak = max(self.peak, memory_of(self.pid))
            time.sleep(0.2)


def run(name: str, python: str, arguments: list[str], out: Path) -> tuple[float, int, np.ndarray | None]:
    """Seconds, peak memory and precision of one contender."""
    out.unlink(missing_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    process = subprocess.Popen([python, "-c", SCRIPTS[name], *arguments], env=environment)
    watch = PeakMemory(process.pid)
    watch.start()
    if process.wait() != 0:
        raise SystemExit(f"{name} ended with {process.returncode}")
    seconds = time.perf_counter() - started
    return seconds, watch.peak, np.load(out) if out.exists() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what make_detections.py has written")
    parser.add_argument("--kind", choices=("bbox", "segm"), default="bbox")
    parser.add_argument("--contenders", nargs="+", choices=SCRIPTS, default=["aegl", "lvis"])
    parser.add_argument("--protocol", default="lvis", help="rules aegl scores by: coco to compare with pycocotools")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the other packages")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        out, cache = Path(folder) / "precision.npy", Path(folder) / "cache"
        arguments = [str(options.folder), options.kind, str(out), str(cache), options.protocol]
        ours: np.ndarray | None = None
        for name in options.contenders:
            for again in (False, True) if name == "aegl" else (False,):
                label = f"{name}, store built before" if again else name
                print(label, flush=True)
                python = sys.executable if name == "aegl" else options.python
                seconds, peak, precision = run(name, python, arguments, out)
                ours = precision if name == "aegl" else ours
                difference = None if precision is None or ours is None else float(np.abs(precision - ours).max())
                rows.append({"contender": label, "seconds": round(seconds, 2), "peak_mb": round(peak / 2**20)})
                rows[-1]["largest_difference"] = difference if name != "aegl" else None
    print(json.dumps({"folder": str(options.folder), "kind": options.kind}))
    for row in rows:
        ratio = row["seconds"] / rows[0]["seconds"]
        text = f"{row['contender']:<28}{row['seconds']:8.2f} s{row['peak_mb']:8d} MB{ratio:8.1f} x"
        print(text if row["largest_difference"] is None else f"{text}   difference {row['largest_difference']:.1e}")


if __name__ == "__main__":
    main()
