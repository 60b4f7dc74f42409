"""What the scripts that drive the `aegl` command share: running it, and tables of its figures in percent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

AEGL = str(Path(sys.executable).with_name("aegl"))
FIGURES = ("AP", "APr", "APc", "APf")


def run(arguments: Sequence[str], log: Path, *, threads: int = 1) -> dict[str, Any]:
    """Show an `aegl` command, run it with its progress going to ``log``, and return its result."""
    print("  $ aegl " + " ".join(arguments), flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stderr:
        done = subprocess.run(
            [AEGL, *arguments, "--json"], stdout=subprocess.PIPE, stderr=stderr, env=environment, text=True, check=False
        )
    if done.returncode:
        end = "\n".join(log.read_text().splitlines()[-15:])
        raise SystemExit(f"that command failed with exit code {done.returncode}; the end of {log}:\n{end}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def figures_table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """A Markdown table of box and mask AP by frequency band, in percent; ``rows`` are labels and `aegl val` results."""
    columns = [(kind, name) for kind in ("box", "mask") for name in FIGURES]
    cells = [["", *(f"{kind} {name}" for kind, name in columns)]]
    cells += [[label, *(percent(metrics[kind][name]) for kind, name in columns)] for label, metrics in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(_aligned(row, widths)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def percent(value: float | None) -> str:
    """A share as percent, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
