"""Reading the results format of COCO and LVIS: a JSON list of ``image_id category_id score bbox? segmentation?``.

A file is read in stretches of records. Each is decoded straight to numbers; where that does not work out it is decoded
to dictionaries, which takes every form that the format allows and names what is wrong with which record.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from aegl.errors import DataError
from aegl.metrics.ids import Ids
from aegl.metrics.json_stream import likely_cuts, read_stretch, stream_list
from aegl.metrics.parallel import ordered_map, shared_zeros
from aegl.metrics.rle import MaskColumn, boxes_of, encode, pixel_counts

if TYPE_CHECKING:
    from aegl.data.store import AnnotationStore
    from aegl.progress import Progress

Records = list[dict[str, Any]]
_MEGABYTE = 1 << 20


class _Rle(msgspec.Struct, gc=False):
    size: tuple[int, int]
    counts: str


class _Record(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    score: float
    bbox: tuple[float, float, float, float] | None = None
    segmentation: _Rle | None = None


_decode_records = msgspec.json.Decoder(list[_Record]).decode


class _UnusualError(Exception):
    """Records that the fast way does not take."""


_NEEDS_A_CLOSER_LOOK = (msgspec.MsgspecError, _UnusualError, TypeError, AttributeError, ValueError, OverflowError)
"""What the fast way ends with where a value is missing, of another form or out of range."""


def read(path: Path, store: AnnotationStore, progress: Progress) -> dict[str, Any]:
    """Columns of a :class:`aegl.metrics.detections.DetectionTable`; raises :class:`DataError` as documented there."""
    reader = _Reader(path, store)
    try:
        _check_is_list(path)
        for part in _parts(path, reader, progress):
            reader.add(part)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): give the path of a results file") from error
    except ValueError as error:
        where = f" after record {reader.count - 1}" if reader.count else ""
        raise DataError(f"{path}: corrupt JSON{where} ({error})") from error
    return reader.columns()


def _parts(path: Path, reader: _Reader, progress: Progress) -> Iterator[_Part]:
    """Stretch by stretch on all cores; from the first that does not work out on, one after the other with more care."""
    cuts = likely_cuts(path)
    progress.start("read", -(-cuts[-1] // _MEGABYTE), "megabyte")
    room = shared_zeros((cuts[-1],), np.uint8)

    def decode(stretch: tuple[int, int]) -> _Part | None:
        try:
            return reader.decode(read_stretch(path, *stretch)).moved(room[slice(*stretch)])
        except (ValueError, DataError):
            return None  # the cut may be wrong, and this process does not know the number of the record

    stretches = list(itertools.pairwise(cuts)) or [(0, 0)]
    # The first stretch tells what to expect of the others, so these are begun when it has been added.
    decoded = itertools.chain(map(decode, stretches[:1]), ordered_map(decode, stretches[1:]))
    for part, (start, stop) in zip(decoded, stretches, strict=True):
        if part is None:
            yield from stream_list(path, start, reader.decode)
            break
        yield part.fetched(room[start:stop])
        progress.update(-(-stop // _MEGABYTE) - -(-start // _MEGABYTE))
    progress.finish()


def _check_is_list(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(64).lstrip().startswith(b"{"):
            raise DataError(f"{path}: holds an object; a results file is a list of detections")


@dataclass
class _Part:
    """Columns of one stretch of records."""

    image_index: np.ndarray
    label: np.ndarray
    score: np.ndarray
    boxes: np.ndarray
    masks: MaskColumn | None

    def moved(self, room: np.ndarray) -> _Part:
        """To be sent to another process, without the characters of masks, which are written to shared ``room``."""
        if self.masks is None or len(self.masks.parts[0]) > len(room):  # an RLE can be longer than its polygons
            return self
        room[: len(self.masks.parts[0])] = self.masks.parts[0]
        return replace(self, masks=replace(self.masks, parts=()))

    def fetched(self, room: np.ndarray) -> _Part:
        """What was :meth:`moved`, as it was; the masks stay in ``room``."""
        if self.masks is None or self.masks.parts:
            return self
        return replace(self, masks=MaskColumn.packed(room[: self.masks.lengths.sum()], self.masks.lengths))


@dataclass
class _Reader:
    """Turns stretches of records into columns that grow in place; the masks stay where each stretch put them."""

    path: Path
    store: AnnotationStore
    count: int = 0
    has_boxes: bool = True
    has_masks: bool = False
    _grown: defaultdict[str, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    _mask_columns: list[MaskColumn] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.images = Ids("image_id", self.store.image_ids)
        self.labels = Ids("category_id", self.store.categories.ids)
        self.sizes = np.asarray(self.store.image_sizes)

    def decode(self, text: bytes | bytearray) -> _Part:
        """Columns of a JSON list; ``ValueError`` if it is no JSON, :class:`DataError` if a record is wrong."""
        try:
            records = _decode_records(text)
            if not self.count and records:
                self._expect(records[0].bbox, records[0].segmentation)
            return self._from_numbers(records)
        except _NEEDS_A_CLOSER_LOOK:
            return self._from_dictionaries(json.loads(text))

    def add(self, part: _Part) -> None:
        """Append a stretch."""
        self.count += len(part.score)
        columns = {"image": part.image_index, "label": part.label, "score": part.score, "boxes": part.boxes}
        for name, values in columns.items():
            self._grown[name] += values.tobytes()
        if part.masks is not None:
            self._mask_columns.append(part.masks)

    def columns(self) -> dict[str, Any]:
        """Everything added, as columns of a table."""

        def column(name: str, dtype: type) -> np.ndarray:
            return np.frombuffer(self._grown[name], dtype=dtype)

        return {
            "image_index": column("image", np.int32),
            "label": column("label", np.int32),
            "score": column("score", np.float64),
            "boxes_xywh_orig": column("boxes", np.float64).reshape(-1, 4),
            "masks": MaskColumn.concatenate(self._mask_columns) if self.has_masks else None,
            "boxes_given": self.has_boxes,
        }

    def _expect(self, bbox: Any, segmentation: Any) -> None:
        # As the official packages do, the first record tells what all of them carry.
        self.has_boxes, self.has_masks = bool(bbox), segmentation is not None
        if not self.has_boxes and not self.has_masks:
            raise DataError(f"{self.path}: record 0 has neither bbox nor segmentation: is it a results file?")

    def _from_numbers(self, records: list[_Record]) -> _Part:
        count = len(records)
        image = self.images.rows(np.fromiter(map(attrgetter("image_id"), records), np.int64, count))
        label = self.labels.rows(np.fromiter(map(attrgetter("category_id"), records), np.int64, count))
        score = np.fromiter(map(attrgetter("score"), records), np.float64, count)
        boxes, masks = None, None
        if self.has_masks:
            rles = [record.segmentation for record in records]
            sizes = np.fromiter(itertools.chain.from_iterable(map(attrgetter("size"), rles)), np.int64, 2 * count)
            lengths = np.fromiter(map(len, map(attrgetter("counts"), rles)), np.int32, count)
            data = "".join(map(attrgetter("counts"), rles)).encode("ascii")
            masks = MaskColumn.packed(np.frombuffer(data, dtype=np.uint8), lengths)
            if (sizes.reshape(-1, 2) != self.sizes[image]).any():
                raise _UnusualError
        if self.has_boxes:
            sides = itertools.chain.from_iterable(map(attrgetter("bbox"), records))
            boxes = np.fromiter(sides, np.float64, 4 * count).reshape(-1, 4)
        return self._part(image, label, score, boxes, masks)

    def _from_dictionaries(self, records: Any) -> _Part:
        if not isinstance(records, list):
            raise DataError(f"{self.path}: holds a {type(records).__name__}; a results file is a list of detections")
        for number, record in enumerate(records):
            if not isinstance(record, dict):
                raise self._wrong(number, f"is no detection but {_short(record)}")
        image = self._known(records, self.images)
        label = self._known(records, self.labels)
        score = self._numbers(records, "score", ())
        if not self.count and records:
            self._expect(records[0].get("bbox"), records[0].get("segmentation"))
        masks = self._masks(records, image) if self.has_masks else None
        boxes = self._numbers(records, "bbox", (4,)) if self.has_boxes else None
        return self._part(image, label, score, boxes, masks)

    def _part(
        self,
        image: np.ndarray,
        label: np.ndarray,
        score: np.ndarray,
        boxes: np.ndarray | None,
        masks: MaskColumn | None,
    ) -> _Part:
        if not np.isfinite(score).all() or not (boxes is None or np.isfinite(boxes).all()):
            raise _UnusualError
        if masks is not None:
            self._check_pixels(masks, self.sizes[image])
        if boxes is None:
            boxes = np.zeros((0, 4)) if masks is None else boxes_of(masks, self.sizes[image])
        return _Part(image.astype(np.int32), label.astype(np.int32), score, boxes, masks)

    def _check_pixels(self, masks: MaskColumn, sizes: np.ndarray) -> None:
        pixels = pixel_counts(masks)[1]
        wrong = np.flatnonzero(pixels != sizes.prod(axis=1, dtype=np.int64))
        if len(wrong):
            got = "are no valid RLE" if pixels[wrong[0]] < 0 else f"cover {pixels[wrong[0]]} pixels"
            size = " x ".join(str(v) for v in sizes[wrong[0]])
            raise self._wrong(int(wrong[0]), f"has a mask whose counts {got}, the image has {size}")

    def _known(self, records: Records, ids: Ids) -> np.ndarray:
        found = np.zeros(len(records), dtype=np.int64)
        for number, record in enumerate(records):
            value = record.get(ids.key)
            row = ids.row(value)
            if row is None:
                missing = f"has no {ids.key}"
                strange = f"has {ids.key} {_short(value)}, which the ground truth lacks"
                raise self._wrong(number, missing if value is None else strange)
            found[number] = row
        return found

    def _numbers(self, records: Records, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """``[N, *shape]`` float64; every entry present and finite."""
        values = [record.get(key) for record in records]
        for number, value in enumerate(values):
            if not _is_finite(value, shape):
                wanted = "a finite number" if not shape else f"a list of {shape[0]} finite numbers"
                wrong = f"has no {key}" if value is None else f"has {key} {_short(value)}, not {wanted}"
                raise self._wrong(number, wrong)
        return np.array(values, dtype=np.float64).reshape(len(records), *shape)

    def _masks(self, records: Records, image: np.ndarray) -> MaskColumn:
        counts = []
        for number, (record, size) in enumerate(zip(records, self.sizes[image].tolist(), strict=True)):
            try:
                counts.append(encode(record.get("segmentation"), *size))
            except (ValueError, TypeError) as error:
                raise self._wrong(number, f"cannot be used: {error}") from error
        return MaskColumn.from_counts(counts)

    def _wrong(self, number: int, reason: str) -> DataError:
        return DataError(f"{self.path}: record {self.count + number} {reason}")


def _is_finite(value: Any, shape: tuple[int, ...]) -> bool:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return array.shape == shape and bool(np.isfinite(array).all())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
