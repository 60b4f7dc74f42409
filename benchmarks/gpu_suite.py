"""Runs the sections of the GPU suite, each in a process of its own with a limit, and prints one Markdown table.

See `benchmarks/gpu_suite.sh`, which finds everything that is needed. A section that fails, or that its limit ends,
costs its own missing rows only. What could not be measured is named below the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SMOKE_LIMIT = 240.0


@dataclass(frozen=True)
class Part:
    """One section.

    Args:
        name: to ask for it by.
        script: path below this folder, and arguments of its own.
        limit: seconds that it may take.
        smoke: arguments that make it small.
        prints_table: whether the script is one that prints a Markdown table, and no section that writes JSON.
    """

    name: str
    script: tuple[str, ...]
    limit: float
    smoke: tuple[str, ...] = ("--smoke",)
    prints_table: bool = False


_TINY = ("--classes", "20", "--height", "64", "--width", "96", "--batch", "1", "--repeats", "1")
_STEP = ("bench_step.py", "--height", "800", "--width", "1344", "--batch", "8", "--amp", "bf16", "--threads", "8")
_INFER = ("bench_inference.py", "--no-torchvision-onnx", "--threads", "8")

# The most wanted figures first: what the suite's own limit cuts off is the end.
PARTS = (
    Part("training", ("gpu/training.py",), 130),
    Part("training beside torchvision", _STEP, 70, _TINY, prints_table=True),
    Part("profile", ("gpu/profile_step.py",), 60),
    Part("sanity", ("gpu/sanity.py",), 110),
    Part("loss", ("bench_loss.py",), 40, ("--rows", "32", "--classes", "20", "--repeats", "2"), prints_table=True),
    Part("kernels", ("gpu/kernels.py",), 30),
    Part("inference", ("gpu/inference.py",), 160),
    Part("inference beside torchvision", _INFER, 80, _TINY, prints_table=True),
)


@dataclass
class Result:
    """Rows and gaps of a section."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0


def run_part(part: Part, device: str, out: Path, limit: float, *, smoke: bool) -> Result:
    """Run a section, at most for so many seconds, and read what it has measured until then."""
    file_name = part.name.replace(" ", "_")
    results, log = out / f"{file_name}.json", out / f"{file_name}.log"
    results.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / part.script[0]), *part.script[1:], "--device", device]
    command += [] if part.prints_table else ["--json", str(results)]
    began = time.perf_counter()
    with log.open("w") as file:
        # In a session of its own, so that its workers end with it.
        process = subprocess.Popen(
            [*command, *(part.smoke if smoke else ())], stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    result = read_table(part.name, log) if part.prints_table else read(part.name, results)
    result.seconds = time.perf_counter() - began
    if code is None:
        result.missing.append({"setting": "the rest", "reason": f"its limit of {limit:.0f} s was reached"})
    elif code:
        last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
        result.missing.append({"setting": "the rest", "reason": f"exit code {code}: {last[:300]}"})
    return result


def read(name: str, path: Path) -> Result:
    """What a section has written."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return Result(name)
    return Result(name, content["rows"], content["missing"])


def read_table(name: str, path: Path) -> Result:
    """The rows of a Markdown table in what a script has printed; the first column says what they are of."""
    lines = [line.strip().strip("|").split("|") for line in path.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    rows = [dict(zip(cells[0][1:], row[1:], strict=False)) for row in cells[2:]]
    return Result(name, [{"setting": cells[2 + i][0], "figures": row} for i, row in enumerate(rows)])


def table(results: Sequence[Result]) -> str:
    """Every row of every section, and what is missing."""
    lines = ["| section | measured | figures |", "|---|---|---|"]
    for result in results:
        for row in result.rows:
            figures = ", ".join(
                f"{name.replace('_', ' ')} {_number(value)}"
                for name, value in row["figures"].items()
                if value is not None
            )
            lines.append(f"| {result.name} | {_cell(row['setting'])} | {_cell(figures)} |")
    gaps = [f"- {result.name}, {gap['setting']}: {gap['reason']}" for result in results for gap in result.missing]
    lines += ["", "Not measured:", *(gaps or ["- nothing is missing"])]
    return "\n".join(lines)


def machine(device: str) -> str:
    """What the figures were measured on."""
    asked = (
        "import platform, torch, torchvision, timm;"
        f"on = torch.cuda.get_device_name() if {device!r} != 'cpu' else platform.processor() or platform.machine();"
        "print(f'{on}, torch {torch.__version__}, CUDA {torch.version.cuda}, torchvision {torchvision.__version__}, "
        "timm {timm.__version__}, Python {platform.python_version()}')"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise SystemExit(f"device={device}: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
    return f"{done.stdout.strip()}, {os.cpu_count()} CPU cores"


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu_suite"), help="folder of logs, JSON and the table")
    parser.add_argument("--seconds", type=float, default=570, help="of all sections together")
    parser.add_argument("--only", help="names of sections, separated by commas")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does every section work?")
    options = parser.parse_args()
    parts = chosen(options.only)
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    heading = machine(options.device)
    print(heading, flush=True)
    results: list[Result] = []
    for part in parts:
        left = options.seconds - (time.perf_counter() - began)
        if left < 5:
            results.append(Result(part.name, missing=[{"setting": "all of it", "reason": "no time was left"}]))
            continue
        limit = min(left, SMOKE_LIMIT if options.smoke else part.limit)
        print(f"{part.name} (at most {limit:.0f} s) ...", end=" ", flush=True)
        results.append(run_part(part, options.device, options.out, limit, smoke=options.smoke))
        print(f"{results[-1].seconds:.0f} s, {len(results[-1].rows)} rows", flush=True)
        # After every section: whatever ends the suite from outside leaves what has been measured.
        (options.out / "table.md").write_text(f"{heading}\n\n{table(results)}\n")
    print(f"\n{table(results)}")
    if not any(result.rows for result in results):
        raise SystemExit("nothing could be measured")


def chosen(only: str | None) -> list[Part]:
    """The sections of these names. Ends the script for an unknown one."""
    names = [part.name for part in PARTS] if only is None else only.split(",")
    unknown = [name for name in names if name not in {part.name for part in PARTS}]
    if unknown:
        raise SystemExit(f"--only {unknown[0]}: no such section; there are {', '.join(part.name for part in PARTS)}")
    return [part for part in PARTS if part.name in names]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a section, its workers included."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


if __name__ == "__main__":
    main()
