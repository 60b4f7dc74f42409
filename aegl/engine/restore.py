"""Models from checkpoints: whole ones to use, and parts of them to start training from."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from aegl.config import Config
from aegl.engine.backend import TorchBackend
from aegl.engine.checkpoint import Checkpoint, is_training_state, load_checkpoint
from aegl.errors import CheckpointError
from aegl.longtail.classifiers import taken_from_plain_head
from aegl.longtail.clustering import class_tables
from aegl.metadata import ModelMeta
from aegl.models.factory import build_model
from aegl.models.mask_rcnn import MaskRCNN
from aegl.models.weights import load_matching

LOGGER = logging.getLogger("aegl")

_BOX_HEAD = "box_head."
_LOSS = "box_head.loss."
_CLASSIFIER = "box_head.classifier."
_CLASS_WISE = ("box_head.regressor.", "mask_head.predictor.")


_OPERATING_POINT = ("conf", "iou", "max_det", "nms_candidates", "calibrate")
"""Keys that say how a trained model is used, and may differ from what it was trained with."""


def rebuild_model(checkpoint: Checkpoint, asked: Config | None = None) -> tuple[MaskRCNN, ModelMeta]:
    """The model of a checkpoint, ready to be evaluated or exported, with its metadata.

    Averaged weights are used where there are any.

    Args:
        checkpoint: a loaded checkpoint.
        asked: gives score threshold, NMS, number of detections and calibration; None keeps those it was trained with.

    Raises:
        CheckpointError: if the weights do not fit the configuration saved with them.
        ConfigError: if the calibration does not go with the model's loss.
    """
    given = {} if asked is None else asked.model_dump()
    update = {key: given[key] for key in _OPERATING_POINT if given.get(key) is not None}
    try:
        config = Config.model_validate({**checkpoint.config, **update})
    except ValidationError as error:
        raise CheckpointError(
            f"the configuration in the checkpoint is not one of this version of aegl: {error}"
        ) from error
    model = build_model(config, checkpoint.statistics, backbone_from_config=False)
    try:
        unused = {name: tensor for name, tensor in model.state_dict().items() if is_training_state(name)}
        model.load_state_dict(checkpoint.for_inference().model | unused)
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint's weights do not fit its configuration: {error}") from error
    meta = replace(checkpoint.meta, iou=config.iou, max_det=config.max_det)
    return model.eval(), meta if config.conf is None else replace(meta, conf=config.conf)


def load_torch_backend(path: str | Path, *, device: torch.device | str = "cpu") -> TorchBackend:
    """The model of a ``.pt`` file behind the :class:`aegl.engine.backend.Backend` interface.

    Raises:
        CheckpointError: if the file is missing, damaged, or no checkpoint.
    """
    model, meta = rebuild_model(load_checkpoint(path))
    return TorchBackend(model, meta, device)


def start_from(
    model: MaskRCNN, meta: ModelMeta, checkpoint: Checkpoint, *, classifier: str, reset: Sequence[str]
) -> list[str]:
    """Load the weights of another run into a new model, by name and shape; what does not fit keeps its fresh start.

    State of the method's parts is never taken over, but for how they group the classes. The classifier starts afresh if
    it is of another kind, unless it can start with a linear one (:func:`taken_from_plain_head`), or if the classes are
    not the same; class-wise regressors and mask predictors only in the latter case. Logs the rest.

    Args:
        model: freshly built.
        meta: of ``model``.
        checkpoint: the other run.
        classifier: kind of the new classifier (`box.classifier`).
        reset: names of parts of the model that start afresh in any case (`stage.reset`).

    Returns:
        Names of the tensors that start afresh.

    Raises:
        CheckpointError: if nothing fits.
    """
    state = checkpoint.for_inference().model
    tables = class_tables(model)
    skip = [name for name in state if name.startswith(_LOSS) and name not in tables]
    skip += [f"{part}." for part in reset]
    reasons = []
    former_kind = checkpoint.config.get("box", {}).get("classifier", classifier)
    if former_kind != classifier:
        reasons.append(f"it was {former_kind} and is {classifier} now")
        state = _with_classifier_of(model, state, former_kind)
    if checkpoint.meta.names != meta.names:
        reasons.append(f"the classes differ ({checkpoint.meta.num_classes} before, {meta.num_classes} now)")
        skip += [_CLASSIFIER, *_class_wise_layers(model)]
    fresh = load_matching(model, state, skip=tuple(skip))
    if new := [name for name in fresh if name.startswith(_CLASSIFIER)]:
        asked = any(_CLASSIFIER.startswith(f"{part}.") for part in reset)
        why = "; ".join(reasons) or ("stage.reset asks for it" if asked else "its number of logits differs")
        number = len(model.box_head.classifier.state_dict())
        part = "" if len(new) == number else f", {len(new)} of its {number} tensors"
        LOGGER.info("the classifier starts afresh%s: %s", part, why)
    others = [n for n in fresh if not n.startswith((_CLASSIFIER, _LOSS)) and not is_training_state(n)]
    if others:
        LOGGER.info("%d other tensors start afresh, among them %s", len(others), ", ".join(others[:4]))
    return fresh


def _with_classifier_of(model: MaskRCNN, state: Mapping[str, Tensor], former_kind: str) -> dict[str, Tensor]:
    """The weights of another run without its classifier, with what this model's classifier can start from instead."""
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(_CLASSIFIER)}
    if former_kind != "linear":
        return kept
    head = {name.removeprefix(_BOX_HEAD): tensor for name, tensor in state.items() if name.startswith(_BOX_HEAD)}
    own = taken_from_plain_head(model.box_head.classifier, head)
    return kept | {_CLASSIFIER + name: tensor for name, tensor in own.items()}


def _class_wise_layers(model: MaskRCNN) -> list[str]:
    agnostic = (model.box_head.class_agnostic, model.mask_head.class_agnostic)
    return [prefix for prefix, is_agnostic in zip(_CLASS_WISE, agnostic, strict=True) if not is_agnostic]
