"""Detectors small enough to export in seconds, with answers far enough apart that rounding cannot swap them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from timm.models import register_model
from timm.models.swin_transformer import SwinTransformer, _create_swin_transformer
from torch import Tensor

from aegl.config.schema import Config
from aegl.engine.backend import TorchBackend
from aegl.export.backend import OnnxBackend
from aegl.export.opsets import NEWEST_OPSET
from aegl.export.pipeline import export_and_prove
from aegl.longtail.statistics import ClassStatistics
from aegl.metadata import ModelMeta
from aegl.models.factory import build_model
from aegl.models.mask_rcnn import MaskRCNN
from aegl.progress import SilentProgress

MAX_DET = 20


@register_model
def test_swin(pretrained: bool = False, **keys: Any) -> SwinTransformer:
    """A Swin of test size, which timm does not have: shifted windows in the first two stages."""
    sizes: dict[str, Any] = {"img_size": 64, "window_size": 4, "embed_dim": 8, "depths": (2, 2, 1, 1)}
    return _create_swin_transformer("test_swin", pretrained, num_heads=(1, 2, 2, 2), **sizes, **keys)


test_swin.__test__ = False  # type: ignore[attr-defined]  # a model, not a test


@dataclass(frozen=True)
class Case:
    """A detector, its file, and both behind the same interface."""

    model: MaskRCNN
    meta: ModelMeta
    result: dict[str, Any]
    pytorch: TorchBackend
    onnx: OnnxBackend

    @property
    def path(self) -> Path:
        return Path(self.result["file"])


def small_model(num_classes: int = 7, loss: str = "softmax_ce", **changes: Any) -> MaskRCNN:
    """A detector with random weights whose logits are spread out; changes are sections of the configuration."""
    values: dict[str, Any] = {
        "pretrained": False,
        "backbone": {"name": "test_resnet", "norm": "batch", "frozen_stages": -1},
        "neck": {"channels": 16, "first_level": 3, "extra_level": True, "anchor_scale": 4.0, "anchor_ratios": [1.0]},
        "rpn": {"pre_nms_test": 60, "post_nms_test": 60},
        "box": {"hidden": 32, "pool": 3},
        "mask": {"channels": 8, "convs": 1, "pool": 4},
        "max_det": MAX_DET,
        "conf": 0.3,
    }
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    values.setdefault("loss", {"name": loss})
    return built_from(Config.model_validate(values), num_classes)


def built_from(config: Config, num_classes: int = 7, seen: Sequence[np.ndarray] | None = None) -> MaskRCNN:
    """The detector of a configuration with random weights whose logits are spread out over the images ``seen``."""
    torch.manual_seed(0)
    model = build_model(config, statistics(num_classes)).eval()
    spread(model, [scene(seed, (64, 96)) for seed in range(2)] if seen is None else seen)
    return model


def statistics(num_classes: int) -> ClassStatistics:
    counts = np.arange(1, num_classes + 1) * 4
    return ClassStatistics(counts, counts, 50 * num_classes, np.minimum(np.arange(num_classes) // 2, 2))


@torch.no_grad()
def spread(model: MaskRCNN, seen: Sequence[np.ndarray]) -> None:
    """Scale and shift the last layers so that answers vary with the image instead of being nearly constant."""
    images = torch.from_numpy(np.stack(seen))
    head, mask_head = model.box_head, model.mask_head
    predictor: Any = mask_head.predictor
    for layer, hooked, answers, deviation, mean in [
        (model.rpn.objectness, model.rpn.objectness, _unchanged, 2.0, 0.0),
        (model.rpn.deltas, model.rpn.deltas, _unchanged, 0.3, 0.0),
        # The same mean for every column: a softmax does not see it, a sigmoid scores most classes low.
        (head.classifier, head.classifier, _unchanged, 3.0, -2.0),
        (head.regressor, head.regressor, _unchanged, 1.0, 0.0),
        # Never called, as only one class per region is computed.
        (predictor, mask_head.deconv, lambda pixels: predictor(pixels.relu().transpose(1, 2)[..., None]), 2.0, 0.0),
    ]:
        seen: list[Tensor] = []
        hook = hooked.register_forward_hook(lambda *call, to=seen, answers=answers: to.append(answers(call[2])))
        layer.bias.zero_()
        model(images)
        hook.remove()
        columns = torch.cat([answer.transpose(0, 1).flatten(1) for answer in seen], dim=1)
        middle = columns.mean(1)
        factor = deviation / float((columns - middle[:, None]).std())
        if hasattr(layer, "temperature"):
            layer.temperature *= factor
        else:
            layer.weight.mul_(factor)
        layer.bias.copy_(mean - factor * middle)


def _unchanged(values: Tensor) -> Tensor:
    return values


def describe(model: MaskRCNN, **changes: Any) -> ModelMeta:
    number = model.box_head.loss.num_classes
    operating = model.postprocess
    values: dict[str, Any] = {
        "names": tuple(f"class {i}" for i in range(number)),
        "category_ids": tuple(range(1, number + 1)),
        "band_names": ("r", "c", "f"),
        "class_band": tuple(int(band) for band in statistics(number).class_band),
        "model": "small",
        "method": "baseline",
        "data": "none",
        "protocol": "coco",
        "imgsz": 64,
        "max_size": 96,
        "stride": model.stride,
        "pixel_mean": tuple(model.pixel_mean.flatten().tolist()),
        "pixel_std": tuple(model.pixel_std.flatten().tolist()),
        "conf": operating.conf,
        "iou": operating.iou,
        "max_det": operating.max_det,
        "mask_size": 2 * model.mask_pool.output_size,
    }
    return ModelMeta(**{**values, **changes})


def scene(seed: int, size: tuple[int, int], objects: int = 8) -> np.ndarray:
    """``[3, H, W]`` uint8: noise with patches."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (3, *size)).astype(np.uint8)
    for _ in range(objects):
        y, x = rng.integers(0, size[0] - 8), rng.integers(0, size[1] - 8)
        h, w = rng.integers(8, 40, 2)
        image[:, y : y + h, x : x + w] = rng.integers(0, 256, (3, 1, 1))
    return image


def make_case(folder: Path, name: str, model: MaskRCNN, *, opset: int | None = None, dynamic: bool = True) -> Case:
    """Export into a shared folder, or take the file of another process: it takes longer than all else here."""
    meta, path, known = describe(model), folder / f"{name}.onnx", folder / f"{name}.result"
    with FileLock(folder / f"{name}.lock"):
        if not known.exists():
            options: dict[str, Any] = {"opset": opset, "dynamic": dynamic, "parity": True}
            result = export_and_prove(
                model,
                meta,
                path,
                config={"imgsz": 64, "nms_candidates": model.postprocess.nms_candidates},
                progress=SilentProgress(),
                **options,
            )
            known.write_bytes(pickle.dumps(result))
    result = pickle.loads(known.read_bytes())
    return Case(model, meta, result, TorchBackend(model, meta), OnnxBackend(path, device="cpu"))


@pytest.fixture(scope="session")
def plain(shared_folder: Path) -> Case:
    """The usual: softmax, linear classifier, heads per class, any size. A blank image has no detections."""
    return make_case(shared_folder, "plain", small_model())


@pytest.fixture(scope="session")
def many_classes(shared_folder: Path) -> Case:
    """As many classes as LVIS: ConvNeXt, sigmoid, cosine classifier, heads for all classes, any size, newest opset."""
    heads = {"box": {"class_agnostic": True, "classifier": "cosine"}, "mask": {"class_agnostic": True}}
    model = small_model(1203, "sigmoid_bce", backbone={"name": "test_convnext"}, **heads)
    return make_case(shared_folder, "many", model, opset=NEWEST_OPSET)


@pytest.fixture(scope="session")
def windowed(shared_folder: Path) -> Case:
    """Window attention, so of one size, the paper's loss, cosine masks, and so few candidates that NMS runs short."""
    model = small_model(7, "fbs_aegl", backbone={"name": "test_swin"}, mask={"predictor": "cosine"}, nms_candidates=26)
    return make_case(shared_folder, "windowed", model, dynamic=False)


@pytest.fixture(scope="session", params=["plain", "many_classes", "windowed"])
def case(request: pytest.FixtureRequest) -> Case:
    """Each of them."""
    found: Case = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session", name="scene")
def _scene() -> Any:
    return scene


@pytest.fixture(scope="session", name="small_model")
def _small_model() -> Any:
    return small_model


@pytest.fixture(scope="session", name="make_case")
def _make_case() -> Any:
    return make_case


@pytest.fixture(scope="session", name="built_from")
def _built_from() -> Any:
    return built_from
