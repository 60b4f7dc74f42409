"""Rules between keys, and on the items of lists, that a single key's range cannot express."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from aegl.config.hints import did_you_mean
from aegl.config.schema import Config
from aegl.config.training import LOGGERS
from aegl.errors import ConfigError

Finding = tuple[tuple[str, ...], str]
"""The keys concerned and one line saying what must hold."""


def cross_checks(config: Config) -> Iterator[Finding]:
    """Every rule that the configuration breaks."""
    yield from _resume(config)
    yield from _batch(config)
    yield from _schedule(config)
    yield from _callbacks(config)
    yield from _sizes(config)
    yield from _bands(config)
    yield from _paste(config)
    yield from _model(config)
    yield from _heads(config)
    yield from _selector(config)


def _resume(config: Config) -> Iterator[Finding]:
    if config.resume == "auto" and config.name is None:
        yield ("resume", "name"), "resume=auto: needs name=, by which it knows the run again"


def _batch(config: Config) -> Iterator[Finding]:
    if config.batch != "auto" and config.batch % config.accumulate:
        line = f"batch={config.batch}, accumulate={config.accumulate}: batch must be a multiple of accumulate"
        yield ("batch", "accumulate"), line


def _schedule(config: Config) -> Iterator[Finding]:
    shares = config.lr_milestones
    if any(not 0 < share <= 1 for share in shares) or not _rising(shares):
        yield ("lr_milestones",), f"lr_milestones={shares}: must be shares of training above 0 and up to 1, rising"


def _callbacks(config: Config) -> Iterator[Finding]:
    if config.patience and not config.val_every:
        line = f"patience={config.patience}, val_every=0: there are no evaluations to wait for; give val_every"
        yield ("patience", "val_every"), line
    for text in config.loggers:
        if text not in LOGGERS:
            yield ("loggers",), f"loggers={text}: unknown{did_you_mean(text, LOGGERS)}; known are {', '.join(LOGGERS)}"


def _sizes(config: Config) -> Iterator[Finding]:
    if config.imgsz > config.max_size:
        line = f"imgsz={config.imgsz}, max_size={config.max_size}: the short side must not exceed the longest long side"
        yield ("imgsz", "max_size"), line
    if any(not 32 <= size <= config.max_size for size in config.train_imgsz):
        line = f"train_imgsz={config.train_imgsz}: every short side must lie in 32 .. max_size={config.max_size}"
        yield ("train_imgsz", "max_size"), line


def _bands(config: Config) -> Iterator[Finding]:
    bands = config.bands
    if len(bands.edges) != len(bands.names) - 1:
        line = f"bands.names={bands.names}, bands.edges={bands.edges}: one edge fewer than names is needed"
        yield ("bands.names", "bands.edges"), line
    if not _rising(bands.edges) or any(edge < 0 for edge in bands.edges):
        yield ("bands.edges",), f"bands.edges={bands.edges}: must rise from 0 or more"
    if len(set(bands.names)) < len(bands.names):
        yield ("bands.names",), f"bands.names={bands.names}: every band needs a name of its own"
    if bands.low > len(bands.names):
        line = f"bands.low={bands.low}: there are only {len(bands.names)} bands in bands.names={bands.names}"
        yield ("bands.low", "bands.names"), line


def _paste(config: Config) -> Iterator[Finding]:
    for name in ("count", "size"):
        low, high = (getattr(config.paste, f"{end}_{name}") for end in ("min", "max"))
        if low > high:
            line = f"paste.min_{name}={low}, paste.max_{name}={high}: the smallest must not exceed the largest"
            yield (f"paste.min_{name}", f"paste.max_{name}"), line


def _model(config: Config) -> Iterator[Finding]:
    for name in ("mean", "std"):
        values = getattr(config.backbone, name)
        if values is not None and len(values) not in (1, 3):
            yield (f"backbone.{name}",), f"backbone.{name}={values}: give one value for all channels, or three"
    if config.backbone.std is not None and min(config.backbone.std) <= 0:
        yield ("backbone.std",), f"backbone.std={config.backbone.std}: must be above 0"
    if min(config.neck.anchor_ratios) <= 0:
        yield ("neck.anchor_ratios",), f"neck.anchor_ratios={config.neck.anchor_ratios}: must be above 0"
    if config.rpn.negative_iou > config.rpn.positive_iou:
        low, high = config.rpn.negative_iou, config.rpn.positive_iou
        line = f"rpn.negative_iou={low}, rpn.positive_iou={high}: the negative one must not be the larger"
        yield ("rpn.negative_iou", "rpn.positive_iou"), line


def _heads(config: Config) -> Iterator[Finding]:
    if config.mask.class_agnostic and config.mask.clusters:
        line = f"mask.class_agnostic=true, mask.clusters={config.mask.clusters}: one mask for all leaves none to share"
        yield ("mask.class_agnostic", "mask.clusters"), line


def _selector(config: Config) -> Iterator[Finding]:
    name = config.selector.name
    if name == "none" or config.sampler == "class_balanced":
        return
    from aegl.longtail import SELECTORS

    try:
        needs_focus = SELECTORS.part(name).needs_focus
    except ConfigError:  # no such selector, which is said where the parts are checked
        return
    if needs_focus:
        line = f"selector.name={name}, sampler={config.sampler}: it needs images drawn for a class, class_balanced"
        yield ("selector.name", "sampler"), line


def _rising(values: list[float] | list[int]) -> bool:
    return all(a < b for a, b in pairwise(values))
