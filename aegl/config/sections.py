"""Nested parts of the configuration. Every key, its type, range, default and help stand once, here or in schema.py."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A frozen group of keys; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class PartSection(BaseModel):
    """A part of a long-tail method: its ``name``, and that part's own options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    def options(self) -> dict[str, Any]:
        """The options as given, without the name."""
        return dict(self.model_extra or {})


class LossSection(PartSection):
    """``loss.name`` and that loss's own hyper-parameters (``aegl methods <name>`` lists them)."""

    name: str = Field("fbs_aegl", description="Classification loss of the box head; `aegl methods` lists them.")


class AuxiliarySection(PartSection):
    """``auxiliary.name`` and that term's own options."""

    name: str = Field("none", description="A further loss term beside the classification loss.")


class CalibrateSection(PartSection):
    """``calibrate.name`` and that calibrator's own options."""

    name: str = Field("none", description="Calibration of a trained model's scores, also at val and export.")


class SelectorSection(PartSection):
    """``selector.name`` and that selector's own options."""

    name: str = Field("none", description="Which regions are trained on, beyond the usual sampling.")


class MemorySection(PartSection):
    """``memory.name`` and that memory's own options."""

    name: str = Field("none", description="Features of earlier regions, trained on again.")


class StageSection(Section):
    """How a run that goes on from another model differs from one that starts from the beginning."""

    after: str | None = Field(
        None,
        description="The stage before: a method, with its own keys after plus signs; trained first unless weights= is "
        "given.",
    )
    length: float = Field(1.0, gt=0, description="Length of this stage, as a multiple of `epochs` or `iterations`.")
    lr: float = Field(1.0, gt=0, description="Peak learning rate of this stage, as a multiple of `lr`.")
    trainable: list[str] = Field(
        [], description="Parts of the model that are trained, e.g. box_head.classifier; empty: all."
    )
    reset: list[str] = Field([], description="Parts of the model that start afresh and not from `weights=`.")


class BandsSection(Section):
    """Frequency bands of the classes, rarest first."""

    source: Literal["auto", "file", "counts"] = Field(
        "auto", description="file: the categories' `frequency` field; counts: computed; auto: file where it has them."
    )
    by: Literal["images", "instances"] = Field("images", description="What is counted per class in the training set.")
    names: list[str] = Field(["r", "c", "f"], min_length=1, description="Names of the bands, rarest first.")
    edges: list[int] = Field(
        [10, 100], description="Largest count of each band but the last (LVIS: rare up to 10, common up to 100 images)."
    )
    low: int = Field(2, ge=0, description="How many bands, from the rarest, count as low-frequency for the losses.")


class PasteSection(Section):
    """Objects cut out of other images that are pasted into training images."""

    folder: str | None = Field(
        None, description="Folder of segments, `<category id>/<name>.png`; null: nothing is pasted."
    )
    probability: float = Field(0.5, ge=0, le=1, description="Probability of pasting anything into an image.")
    min_count: int = Field(1, ge=1, description="Smallest number of segments pasted into such an image.")
    max_count: int = Field(3, ge=1, description="Largest number of segments.")
    min_size: float = Field(0.1, gt=0, le=1, description="Smallest longer side of a segment, as share of the image's.")
    max_size: float = Field(0.5, gt=0, le=1, description="Largest longer side of a segment, as share of the image's.")
    min_visible: float = Field(
        0.1, ge=0, le=1, description="Objects of which a smaller share of their area is left in sight are dropped."
    )


class ShapesSection(Section):
    """The embedded data set `shapes_lt`: generated, deterministic, no download."""

    classes: int = Field(100, ge=4, le=100, description="Number of classes, drawn from 10 shapes, 5 hues, 2 textures.")
    max_instances: int = Field(800, ge=1, description="Training instances of the most frequent class.")
    imbalance: float = Field(800.0, ge=1, description="Count of the most frequent class over that of the rarest.")
    val_per_class: int = Field(12, ge=1, description="Instances of every class in the balanced val split.")
    imgsz: int = Field(96, ge=32, le=1024, description="Side of the square images, in pixels.")
    seed: int = Field(0, ge=0, description="Seed of the whole data set.")


class BackboneSection(Section):
    """The timm backbone."""

    name: str = Field("resnet50", description="Any timm model with `features_only` support.")
    norm: Literal["frozen", "eval", "batch", "sync"] = Field(
        "eval",
        description="Batch norm: frozen (statistics and affine fixed), eval (statistics fixed, affine trained), batch "
        "(both trained), sync (batch, over all GPUs of the run). Other norms are not touched.",
    )
    frozen_stages: int = Field(
        1, ge=-1, le=4, description="-1 none, 0 the stem, n the stem and the first n stages are not trained."
    )
    mean: list[float] | None = Field(
        None, min_length=1, max_length=3, description="Pixel mean, RGB in 0..1; default: that of the timm weights."
    )
    std: list[float] | None = Field(
        None, min_length=1, max_length=3, description="Pixel standard deviation, RGB in 0..1; default as for mean."
    )
    drop_path: float = Field(0.0, ge=0, lt=1, description="Stochastic depth rate, for backbones that have it.")


class NeckSection(Section):
    """The feature pyramid and its anchors."""

    channels: int = Field(256, ge=8, description="Channels of every pyramid level.")
    first_level: int = Field(
        2, ge=2, le=4, description="Finest level: 2 has stride 4, 3 has stride 8, 4 has stride 16."
    )
    extra_level: bool = Field(True, description="Add one coarser level by stride-2 pooling (used by the RPN only).")
    anchor_scale: float = Field(8.0, gt=0, description="Anchor side at a level = scale x stride.")
    anchor_ratios: list[float] = Field([0.5, 1.0, 2.0], min_length=1, description="Height over width of the anchors.")


class RpnSection(Section):
    """Region proposal network."""

    batch_per_image: int = Field(256, ge=1, description="Anchors sampled per image for the loss.")
    positive_fraction: float = Field(0.5, gt=0, le=1, description="Largest share of positives among them.")
    positive_iou: float = Field(0.7, gt=0, le=1, description="IoU from which an anchor is positive.")
    negative_iou: float = Field(0.3, ge=0, le=1, description="IoU below which an anchor is negative.")
    pre_nms_train: int = Field(2000, ge=1, description="Proposals kept per level before NMS, in training.")
    pre_nms_test: int = Field(1000, ge=1, description="The same at inference.")
    post_nms_train: int = Field(1000, ge=1, description="Proposals kept per image after NMS, in training.")
    post_nms_test: int = Field(1000, ge=1, description="The same at inference.")
    nms_iou: float = Field(0.7, gt=0, le=1, description="IoU of the proposal NMS.")


class RoiSection(Section):
    """Which regions the box and mask heads are trained on."""

    batch_per_image: int = Field(512, ge=1, description="Proposals sampled per image.")
    positive_fraction: float = Field(0.25, gt=0, le=1, description="Largest share of foreground among them.")
    positive_iou: float = Field(0.5, gt=0, le=1, description="IoU from which a proposal is foreground.")


class BoxSection(Section):
    """The box head."""

    hidden: int = Field(1024, ge=8, description="Width of the two shared fully connected layers.")
    pool: int = Field(7, ge=1, description="RoIAlign output size.")
    class_agnostic: bool = Field(False, description="One box regressor for all classes instead of one per class.")
    classifier: Literal["linear", "cosine", "branches", "dual"] = Field(
        "linear",
        description="Classifier; branches: a hidden layer of its own before each group of logits (Forest R-CNN); dual: "
        "a second classifier beside the usual one (SimCal).",
    )
    temperature: float = Field(20.0, gt=0, description="Scale of the cosine classifier.")
    loss_weight: float = Field(1.0, ge=0, description="Weight of the box regression loss.")


class MaskSection(Section):
    """The mask head."""

    channels: int = Field(256, ge=8, description="Channels of the convolutions.")
    convs: int = Field(4, ge=0, description="Number of 3x3 convolutions before the deconvolution.")
    pool: int = Field(14, ge=2, description="RoIAlign output size; the predicted mask is twice as large.")
    class_agnostic: bool = Field(False, description="One mask for all classes instead of one per class.")
    clusters: int = Field(
        0,
        ge=0,
        description="Masks that classes of similar shape share, at most half as many as classes; 0: one per class.",
    )
    predictor: Literal["linear", "cosine"] = Field("linear", description="Last layer: plain, or on unit features.")
    temperature: float = Field(20.0, gt=0, description="Scale of the cosine predictor.")
    loss_weight: float = Field(1.0, ge=0, description="Weight of the mask loss.")
