"""Time and memory of every classification loss, forward and backward, against torch's own cross-entropies.

python benchmarks/bench_loss.py [--rows 2048] [--classes 1203] [--threads 1] [--device cpu] [--repeats 15] [--growth]

Logits, labels and class counts are made up with the shape of LVIS. Each loss is timed right after binary cross-entropy
with logits, in every round; the ratio is the median over the rounds. One CPU thread is timed by its own clock, which
stands still while others have the core; all else by the wall's. Memory is what the allocator holds at most beyond
what it held before, the logits' gradient included, in float32 buffers of the logits' size: on the CPU from the events
that the allocator reports to torch's profiler, on a GPU from its own peak. *Off by* is the largest difference to
autograd through the unfused formula with the same weights, of the value and of the gradient, relative to the largest.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from memory import peak_bytes
from torch import Tensor

from aegl.longtail import LOSSES
from aegl.longtail.base import HIDDEN, ClassificationLoss
from aegl.longtail.losses._blocks import row_blocks
from aegl.longtail.losses._elementwise import ElementwiseLoss
from aegl.longtail.statistics import ClassStatistics

Criterion = Callable[[Tensor], Tensor]
"""Logits (a leaf) to the scalar to differentiate."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "fbs_aegl, activation=gumbel": ("fbs_aegl", {"activation": "gumbel"}),
    "fbs_aegl, objectness": ("fbs_aegl", {"objectness": True}),
    "fbs_aegl, normalization=sum_of_weights": ("fbs_aegl", {"normalization": "sum_of_weights"}),
    "eql, activation=gumbel": ("eql", {"activation": "gumbel"}),
    "balanced_softmax, form=sigmoid": ("balanced_softmax", {"form": "sigmoid"}),
    "class_balanced, base=sigmoid": ("class_balanced", {"base": "sigmoid"}),
    "class_balanced, base=focal": ("class_balanced", {"base": "focal"}),
}
BCE, PLAIN = "binary_cross_entropy_with_logits", "fbs_aegl, plain form"
GROWTH = (80, 1203, 10000)


@dataclass(frozen=True)
class Batch:
    """``[N, C + 2 or more]`` columns to take logits from, and ``[N]`` labels, background ``C``."""

    columns: Tensor
    labels: Tensor
    stats: ClassStatistics

    def leaf(self, num_logits: int) -> Tensor:
        """``[N, num_logits]`` logits to differentiate by."""
        return self.columns[:, :num_logits].clone().requires_grad_()


def make_batch(rows: int, classes: int, device: str, mean: float, std: float) -> Batch:
    """A quarter of the rows foreground; classes with 1 to 50 000 instances, drawn by the root of their number."""
    rng = np.random.default_rng(0)
    counts = np.exp(rng.uniform(0, np.log(50_000), classes)).astype(np.int64)
    images = np.maximum(counts // 2, 1)
    stats = ClassStatistics(counts, images, 100_000, np.digitize(images, [11, 101]))
    labels = rng.choice(classes, rows, p=np.sqrt(counts) / np.sqrt(counts).sum())
    labels[rows // 4 :] = classes
    columns = rng.normal(mean, std, (rows, 2 * classes + 300)).astype(np.float32)
    return Batch(torch.from_numpy(columns).to(device), torch.from_numpy(labels).to(device), stats)


def summed(loss: ClassificationLoss, labels: Tensor) -> Criterion:
    """The loss as users of it see it: its terms, added up."""
    return lambda logits: torch.stack(list(loss(logits, labels).values())).sum()


def plain_form(loss: ElementwiseLoss, labels: Tensor) -> Criterion:
    """The same loss as its formula reads: every step a new matrix, derivatives by autograd."""
    number = loss.num_classes

    def total(logits: Tensor) -> Tensor:
        targets = labels[:, None] == torch.arange(loss.num_logits, device=labels.device)
        values = logits.detach()
        weights = loss.element_weights(loss.activation.probability(values)[:, :number], labels, {})
        if callable(weights):
            weights = torch.cat([weights(rows) for rows in row_blocks(values)])  # so that it draws what the loss draws
        if weights is None:
            weights = torch.ones_like(values)
        elif loss.num_logits > number:
            weights = torch.cat([weights, loss.background_weights(values, labels)[:, None]], dim=1)
        normalizer = {
            "num_proposals": torch.tensor(len(labels)),
            "num_foreground": (labels < number).sum().clamp(min=1),
            "sum_of_weights": (weights * (values > HIDDEN)).sum(),
        }[loss.normalization]
        value = loss.loss_weight * (weights * loss.element_losses(logits, targets)).sum() / normalizer
        return value.clamp(max=getattr(loss, "largest_loss", torch.inf))

    return total


def run(criterion: Criterion, leaf: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    value = criterion(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def seconds(work: Callable[[], Any], device: str) -> float:
    """How long one call takes."""
    if device == "cpu":
        clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
        started = clock()
        work()
        return clock() - started
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def off_by(loss: ClassificationLoss, batch: Batch) -> str:
    """Largest relative difference to the plain form; a dash for losses that have none here."""
    if not isinstance(loss, ElementwiseLoss):
        return "-"
    results = []
    for make in (summed, plain_form):
        same: Any = copy.deepcopy(loss)  # a step changes the state of some
        torch.manual_seed(1)
        results.append(run(make(same, batch.labels), batch.leaf(loss.num_logits)))
    (value, gradient), (expected, expected_gradient) = results
    of_value = ((value - expected) / expected).abs().item()
    of_gradient = ((gradient - expected_gradient).abs().max() / expected_gradient.abs().max()).item()
    return f"{max(of_value, of_gradient):.0e}"


def candidates(batch: Batch) -> dict[str, tuple[int, Criterion, ClassificationLoss | None]]:
    """By name: number of logits, what to run, and the loss it comes from."""
    stats, labels = batch.stats, batch.labels
    targets = F.one_hot(labels, stats.num_classes + 1)[:, :-1].float().contiguous()

    def bce(logits: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)

    plain = LOSSES.build("fbs_aegl", stats).to(labels.device)
    assert isinstance(plain, ElementwiseLoss)
    found: dict[str, tuple[int, Criterion, ClassificationLoss | None]] = {
        BCE: (stats.num_classes, bce, None),
        "cross_entropy": (stats.num_classes + 1, lambda logits: F.cross_entropy(logits, labels), None),
        PLAIN: (stats.num_classes, plain_form(plain, labels), None),
    }
    for name, (part, options) in ({name: (name, {}) for name in LOSSES} | VARIANTS).items():
        loss = LOSSES.build(part, stats, **options).to(labels.device)
        found[name] = (loss.num_logits, summed(loss, labels), loss)
    return found


def ratios(
    batch: Batch, entries: dict[str, tuple[int, Criterion, Any]], repeats: int
) -> dict[str, tuple[float, float]]:
    """By name: fastest milliseconds, and the median ratio to binary cross-entropy in the same round."""
    device = batch.labels.device.type
    works = {
        name: functools.partial(run, criterion, batch.leaf(columns))
        for name, (columns, criterion, _) in entries.items()
    }
    for work in works.values():
        work()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append((seconds(works[BCE], device), seconds(work, device)))
    return {
        name: (1000 * min(own for _, own in pairs), statistics.median(own / bce for bce, own in pairs))
        for name, pairs in times.items()
    }


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown, all columns but the first set right."""
    names = list(header)
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("--threads", type=int, default=None, help="default: torch's own choice")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--mean", type=float, default=-3.0, help="of the logits")
    parser.add_argument("--std", type=float, default=2.0, help="of the logits")
    parser.add_argument("--only", nargs="*", help="names of losses, e.g. fbs_aegl; default: all")
    parser.add_argument(
        "--growth", action="store_true", help=f"ratios at {', '.join(map(str, GROWTH))} classes instead"
    )
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)

    def prepared(classes: int) -> tuple[Batch, dict[str, tuple[int, Criterion, Any]]]:
        batch = make_batch(options.rows, classes, options.device, options.mean, options.std)
        entries = candidates(batch)
        kept = [BCE, *(options.only if options.only is not None else entries)]
        return batch, {name: entries[name] for name in dict.fromkeys(kept)}

    where = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{options.rows} rows, float32, {where}, torch {torch.__version__}, {options.repeats} rounds\n")
    if options.growth:
        measured = [ratios(*prepared(classes), options.repeats) for classes in GROWTH]
        header = ["loss", *(f"C = {classes}: ms | x BCE" for classes in GROWTH)]
        lines = ([name, *(f"{at[name][0]:.2f} | {at[name][1]:.2f}" for at in measured)] for name in measured[0])
        print(table(" | ".join(header).split(" | "), (" | ".join(row).split(" | ") for row in lines)))
        return
    batch, entries = prepared(options.classes)
    timed = ratios(batch, entries, options.repeats)
    buffer = options.rows * options.classes * 4
    rows = []
    for name, (columns, criterion, loss) in entries.items():
        leaf = batch.leaf(columns)
        peak = peak_bytes(functools.partial(run, criterion, leaf), options.device) / buffer
        milliseconds, ratio = timed[name]
        difference = "-" if loss is None else off_by(loss, batch)
        rows.append([name, f"{milliseconds:.2f}", f"{ratio:.2f}", f"{peak:.2f}", difference])
    print(table(["loss", "ms", "x BCE", "peak buffers", "off by"], rows))


if __name__ == "__main__":
    main()
