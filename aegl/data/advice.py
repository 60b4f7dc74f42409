"""What to train a data set with, proposed from its counts and sizes, each key with its reason.

Rules of thumb: a start, and a comparison that tells whether they hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aegl.config import shipped
from aegl.data.bands import class_statistics
from aegl.data.source import DataSource
from aegl.data.store import NO_MASK, AnnotationStore
from aegl.longtail.statistics import ClassStatistics

LONG_TAIL = 10.0
"""From this ratio of the most frequent class to the rarest a set is called long-tailed."""
MOST_REPEATS = 10.0
"""Largest repeat factor that a proposed sampler gives: that of LVIS's rarest classes in the usual recipe."""
_METHOD, _BASELINE = "seesaw", "softmax_ce"
_COMPARED = ("softmax_ce+sampler=rfs", "sigmoid_bce+sampler=rfs", "seesaw", "fbs_aegl")
_TRIAL = {"model": "mini", "imgsz": 160, "max_size": 256, "train_imgsz": 160, "epochs": 3}
"""What is trained in minutes on a CPU: it finds next to nothing, but shows that the whole way works."""
_SIDE, _LONG_SIDE = 800, 1333
_STEP = 32
_IMAGES_TO_SEE, _FEWEST_EPOCHS, _MOST_EPOCHS = 60_000, 24, 300
_SMALL = 16.0


@dataclass(frozen=True)
class Proposal:
    """A key, the value proposed, and why."""

    key: str
    value: Any
    reason: str

    @property
    def argument(self) -> str:
        """As it is written on the command line."""
        many = isinstance(self.value, Sequence) and not isinstance(self.value, str)
        return f"{self.key}={','.join(map(str, self.value)) if many else self.value}"


def advise(source: DataSource, data: str, *, gpu: bool = True) -> dict[str, Any]:
    """Facts of a data set and what follows from them.

    Args:
        source: the data set.
        data: what the user called it by, for the commands.
        gpu: whether there is one to train on.

    Returns:
        ``{"data", "facts", "proposals": [{"key", "value", "reason", "argument"}], "warnings": [str], "train",
        "compare", "trial"}``; the last three are commands, ``trial`` a training of minutes, None where there is a GPU.

    Raises:
        DataError: if a file is missing or broken, or the splits have different classes.
    """
    train = source.open("train")
    statistics = class_statistics(train, source.bands)
    facts = _facts(train, statistics)
    proposals = [
        *_bands(statistics),
        *_method(facts, statistics),
        *_images(facts, train),
        *_length(facts),
        *([Proposal("box_masks", "true", "not every object has a mask")] if facts["objects_without_mask"] else []),
    ]
    keys = " ".join(proposal.argument for proposal in proposals)
    return {
        "data": source.name,
        "facts": facts,
        "proposals": [{**vars(proposal), "argument": proposal.argument} for proposal in proposals],
        "warnings": _warnings(source, train, facts),
        "train": f"aegl train data={data} {keys}",
        "compare": f"aegl compare data={data} methods={','.join(_COMPARED)} seeds=3",
        "trial": None if gpu else _trial(data, proposals),
    }


def _trial(data: str, proposals: Sequence[Proposal]) -> str:
    kept = [proposal.argument for proposal in proposals if proposal.key not in _TRIAL]
    return " ".join([f"aegl train data={data}", *(f"{key}={value}" for key, value in _TRIAL.items()), *kept])


def _facts(train: AnnotationStore, statistics: ClassStatistics) -> dict[str, Any]:
    instances = np.asarray(statistics.instance_counts)
    occurring = instances[instances > 0]
    scale = _network_scale(train)
    sides = np.sqrt(np.maximum(np.asarray(train.ann_areas), 0.0))
    return {
        "images": len(train),
        "images_with_objects": int(statistics.num_images),
        "objects": int(instances.sum()),
        "classes": len(instances),
        "classes_without_objects": int((instances == 0).sum()),
        "most_frequent": int(occurring.max(initial=0)),
        "rarest": int(occurring.min()) if len(occurring) else 0,
        "imbalance": round(float(occurring.max() / occurring.min()), 1) if len(occurring) else 1.0,
        "bands": statistics.band_sizes,
        "short_side": int(np.median(np.asarray(train.image_sizes).min(axis=1))) if len(train) else 0,
        "object_side": round(float(np.median(sides[train.ann_areas > 0]) * scale), 1) if len(sides) else 0.0,
        "objects_without_mask": int((np.asarray(train.mask_kinds) == NO_MASK).sum()),
        "federated": train.federated,
    }


def _network_scale(train: AnnotationStore) -> float:
    """Median factor from the pixels of a file to those of the proposed network input."""
    sizes = np.asarray(train.image_sizes, dtype=np.float64)
    return float(np.median(_side(train) / sizes.min(axis=1))) if len(sizes) else 1.0


def _side(train: AnnotationStore) -> int:
    """The median short side, in whole steps of 32, at most the usual 800."""
    median = float(np.median(np.asarray(train.image_sizes).min(axis=1))) if len(train) else _SIDE
    return int(np.clip(_STEP * round(median / _STEP), 2 * _STEP, _SIDE))


def _bands(statistics: ClassStatistics) -> list[Proposal]:
    """Other edges where the usual ones leave a band empty and the bands are by counts."""
    counts = np.sort(np.asarray(statistics.image_counts)[np.asarray(statistics.image_counts) > 0])
    names = statistics.band_names
    if all(statistics.band_sizes.values()) or len(counts) < 2 * len(names):
        return []
    edges = [int(counts[len(counts) * place // len(names) - 1]) for place in range(1, len(names))]
    if len(set(edges)) < len(edges) or edges[-1] >= counts[-1]:
        return []
    empty = ", ".join(name for name, size in statistics.band_sizes.items() if not size)
    reason = f"with the usual edges no class is in band {empty}; these put a third of the classes into each"
    return [Proposal("bands.edges", edges, reason), Proposal("bands.source", "counts", "so that the edges count")]


def _method(facts: dict[str, Any], statistics: ClassStatistics) -> list[Proposal]:
    if facts["imbalance"] < LONG_TAIL:
        why = f"the most frequent class has {facts['imbalance']:g} times the objects of the rarest: no long tail"
        return [Proposal("method", _BASELINE, why), Proposal("sampler", "random", "nothing needs repeating")]
    why = (
        f"the most frequent class has {facts['imbalance']:g} times the objects of the rarest; "
        f"{_gain(_METHOD, _BASELINE)}"
    )
    rare = Proposal("sampler", "rfs", "repeats images of rare classes")
    return [Proposal("method", _METHOD, why), rare, *_threshold(statistics)]


def _gain(method: str, baseline: str) -> str:
    """What a method published for rare classes beside the baseline, under the same conditions."""
    rows = {
        name: next(
            row
            for row in shipped.read("method", name)["reference"]["published"]
            if (row.get("data"), row.get("backbone"), row.get("sampler", "rfs")) == ("lvis_v1", "r50", "rfs")
        )
        for name in (method, baseline)
    }
    ours, plain = rows[method], rows[baseline]
    return (
        f"on LVIS {method} published mask AP {ours['mask_ap']:g} and {ours['ap_r']:g} for rare classes, "
        f"{baseline} with the same sampler {plain['mask_ap']:g} and {plain['ap_r']:g}"
    )


def _threshold(statistics: ClassStatistics) -> list[Proposal]:
    """Repeat what is seen in fewer images than the frequent classes are, as 0.001 does on LVIS."""
    there = np.asarray(statistics.image_counts) > 0
    counts, band = np.asarray(statistics.image_counts)[there], np.asarray(statistics.class_band)[there]
    frequent = counts[band == len(statistics.band_names) - 1]
    border = int(frequent.min()) if len(frequent) else int(np.median(counts))
    border = min(border, math.floor(counts.min() * MOST_REPEATS**2))
    share = float(f"{border / max(statistics.num_images, 1):.2g}")
    most = math.sqrt(max(border / counts.min(), 1.0))
    reason = (
        f"repeats classes seen in fewer than {border} of {statistics.num_images} images, the rarest {most:.1f} times"
    )
    return [Proposal("rfs_threshold", min(share, 1.0), reason)]


def _images(facts: dict[str, Any], train: AnnotationStore) -> list[Proposal]:
    side = _side(train)
    if side == _SIDE:
        return []
    long_side = _STEP * math.ceil(side * _LONG_SIDE / _SIDE / _STEP)
    smallest = max(_STEP, _STEP * round(0.8 * side / _STEP))
    reason = f"the median short side is {facts['short_side']} pixels: larger inputs would only cost time"
    return [
        Proposal("imgsz", side, reason),
        Proposal("max_size", long_side, "in the usual proportion to imgsz"),
        Proposal("train_imgsz", list(range(smallest, side + 1, _STEP)), "from four fifths of imgsz, as usual"),
    ]


def _length(facts: dict[str, Any]) -> list[Proposal]:
    images = max(facts["images_with_objects"], 1)
    epochs = min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, math.ceil(_IMAGES_TO_SEE / images)))
    seen = epochs * images
    return [
        Proposal(
            "epochs", epochs, f"{seen:,} images seen; fewer than about {_IMAGES_TO_SEE:,} leave new heads undertrained"
        )
    ]


def _warnings(source: DataSource, train: AnnotationStore, facts: dict[str, Any]) -> list[str]:
    found = []
    if facts["objects_without_mask"]:
        found.append(
            f"{facts['objects_without_mask']} of {train.num_annotations} annotations have no mask: boxes do instead"
        )
    if facts["classes_without_objects"]:
        found.append(f"{facts['classes_without_objects']} classes have no object to learn from")
    if "val" not in source.files:
        found.append("there is no val split: `aegl data split` makes one")
    elif source.files["val"] == source.files["train"]:
        found.append(
            "one file is both splits: AP will tell how well it was learnt by heart; `aegl data split` parts it"
        )
    else:
        found += _unmeasured(source.open("val"), facts["classes"])
    if 0 < facts["object_side"] < _SMALL:
        found.append(
            f"half of the objects are smaller than {facts['object_side']:g} pixels a side: a larger imgsz helps"
        )
    return found


def _unmeasured(val: AnnotationStore, classes: int) -> list[str]:
    there = len(np.unique(np.asarray(val.ann_labels)))
    return [f"{classes - there} classes have no object in val: no AP will be told of them"] if there < classes else []
