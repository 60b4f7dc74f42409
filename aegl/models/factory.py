"""From the configuration to a detector: the only place of this package that reads it."""

from __future__ import annotations

from pathlib import Path

from aegl.config.fields import part_sections
from aegl.config.schema import Config
from aegl.longtail.gradients import GradientAccount
from aegl.longtail.parts import build_parts
from aegl.longtail.statistics import ClassStatistics
from aegl.models.anchors import AnchorGenerator
from aegl.models.backbone import TimmBackbone
from aegl.models.box_head import BoxHead
from aegl.models.fpn import FeaturePyramid
from aegl.models.mask_head import MaskHead
from aegl.models.mask_rcnn import MaskRCNN
from aegl.models.postprocess import PostprocessOptions
from aegl.models.roi_pool import RegionPool
from aegl.models.roi_sampler import RegionSampler
from aegl.models.rpn import RegionProposals, RpnOptions

AP_CONF = 1e-4
"""Score threshold when none is given: low, as AP needs it."""


def build_model(config: Config, statistics: ClassStatistics, *, backbone_from_config: bool = True) -> MaskRCNN:
    """Build the detector that a configuration describes, with the parts of its long-tail method.

    Args:
        config: the configuration.
        statistics: class counts of the training set.
        backbone_from_config: load the backbone weights that the configuration names; false where a checkpoint will
            replace all weights anyway.

    Raises:
        ConfigError: for a backbone that cannot be used, or parts of a method that do not go together.
        CheckpointError: if backbone weights cannot be had or do not fit.
    """
    num_classes = statistics.num_classes
    parts = build_parts(statistics, {name: getattr(config, name) for name in part_sections()})
    backbone = _backbone(config, backbone_from_config)
    channels = config.neck.channels
    neck = FeaturePyramid(backbone.channels, channels, extra_level=config.neck.extra_level)
    strides = list(backbone.strides)
    all_strides = [*strides, 2 * strides[-1]] if config.neck.extra_level else strides
    anchors = AnchorGenerator(all_strides, config.neck.anchor_scale, config.neck.anchor_ratios)
    box_head = BoxHead(
        channels * config.box.pool**2,
        config.box.hidden,
        parts,
        class_agnostic=config.box.class_agnostic,
        classifier=config.box.classifier,
        temperature=config.box.temperature,
        loss_weight=config.box.loss_weight,
        gradients=GradientAccount(statistics) if config.track_gradients else None,
    )
    mask_head = MaskHead(
        channels,
        config.mask.channels,
        config.mask.convs,
        num_classes,
        class_agnostic=config.mask.class_agnostic,
        clusters=config.mask.clusters,
        predictor=config.mask.predictor,
        temperature=config.mask.temperature,
        loss_weight=config.mask.loss_weight,
    )
    return MaskRCNN(
        backbone,
        neck,
        # The bound method, as the selector itself is registered in the box head.
        RegionProposals(
            channels, anchors, RpnOptions(**config.rpn.model_dump()), parts.selector and parts.selector.survivors
        ),
        RegionSampler(num_classes, **config.roi.model_dump()),
        RegionPool(strides, config.box.pool),
        box_head,
        RegionPool(strides, config.mask.pool),
        mask_head,
        pixel_mean=_pixels(config.backbone.mean, backbone.mean),
        pixel_std=_pixels(config.backbone.std, backbone.std),
        postprocess=PostprocessOptions(
            conf=AP_CONF if config.conf is None else config.conf,
            iou=config.iou,
            max_det=config.max_det,
            nms_candidates=config.nms_candidates,
        ),
    )


def _backbone(config: Config, load_weights: bool) -> TimmBackbone:
    weights_file = Path(config.backbone_weights) if config.backbone_weights and load_weights else None
    return TimmBackbone(
        config.backbone.name,
        norm=config.backbone.norm,
        frozen_stages=config.backbone.frozen_stages,
        pretrained=config.pretrained and load_weights,
        weights_file=weights_file,
        drop_path=config.backbone.drop_path,
        first_level=config.neck.first_level,
    )


def _pixels(given: list[float] | None, default: tuple[float, ...]) -> list[float]:
    """Three values in 0..255 from one or three in 0..1."""
    values = list(default if given is None else given)
    return [255 * v for v in (values * 3 if len(values) == 1 else values)]
