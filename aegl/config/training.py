"""The keys that say what is trained and how; :class:`aegl.config.schema.Config` adds those of all other verbs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from aegl.config.sections import (
    AuxiliarySection,
    BackboneSection,
    BandsSection,
    BoxSection,
    CalibrateSection,
    LossSection,
    MaskSection,
    MemorySection,
    NeckSection,
    PasteSection,
    RoiSection,
    RpnSection,
    Section,
    SelectorSection,
    StageSection,
)

LOGGERS = ("tensorboard", "wandb", "mlflow")
"""Systems that training can be recorded in; each needs the extra of its name."""


class TrainingConfig(Section):
    """What to train, on what, where and how."""

    # What to run
    data: str | None = Field(None, description="A name from `cfg/data`, or your own YAML, folder or COCO/LVIS JSON.")
    model: str = Field("r50", description="A name from `cfg/model`, or `timm:<name>` for any timm backbone.")
    method: str = Field("fbs_aegl", description="A long-tail method from `cfg/method`: loss, classifier and sampler.")
    schedule: str = Field("2x", description="A training schedule from `cfg/schedule`; most models name their own.")
    recipe: str | None = Field(None, description="A full recipe from `cfg/recipe`.")
    weights: str | None = Field(
        None, description="A checkpoint or ONNX file; val, predict and export default to the newest run's best.pt."
    )
    backbone_weights: str | None = Field(None, description="A local file of backbone weights, instead of timm's.")
    pretrained: bool = Field(True, description="Start from timm's pretrained backbone when no other weights are given.")

    # Where things go
    project: str = Field("runs", description="Folder that holds the runs.")
    name: str | None = Field(None, description="Name of the run's folder; default: the verb, numbered.")
    exist_ok: bool = Field(False, description="Write into an existing run's folder instead of refusing.")
    data_dir: str = Field("datasets", description="Folder below which the data sets of `cfg/data` lie.")
    resume: bool | Literal["auto"] = Field(
        False,
        description="Continue the run of `weights=`, of `name=`, or the newest one; auto: that of `name=`, if begun.",
    )

    # Machine
    device: str = Field("auto", description="auto, cpu, cuda, or cuda:N.")
    workers: int = Field(2, ge=0, description="Data loading processes per rank.")
    loader_timeout: float = Field(
        600.0, ge=0, description="Seconds after which training stops if no batch has come from the workers; 0: never."
    )
    seed: int = Field(0, ge=0, description="Seed of weights, sampling and augmentation.")
    amp: Literal["none", "bf16", "fp16"] = Field("none", description="Autocast precision of training.")
    compile: bool = Field(False, description="Compile backbone and pyramid with PyTorch's compiler, for training.")
    checkpoint_activations: bool = Field(
        False, description="Compute the backbone's activations twice instead of keeping them: less memory, more time."
    )

    # Length and optimiser
    epochs: float | None = Field(None, gt=0, description="Length of training in epochs of the sampler.")
    iterations: int | None = Field(None, gt=0, description="Length of training in steps, instead of epochs.")
    batch: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        16, description="Images per optimiser step, over all processes; auto: as many as fit into the GPUs."
    )
    accumulate: int = Field(1, ge=1, description="Forward passes per optimiser step; divides `batch`.")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="Optimiser.")
    lr: float = Field(0.02, gt=0, description="Peak learning rate.")
    lr_batch: int = Field(16, ge=1, description="Batch that `lr` was chosen for.")
    lr_scaling: Literal["none", "linear"] = Field(
        "none", description="What another batch does to `lr`: nothing, or times batch / lr_batch."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD, first beta of AdamW.")
    nesterov: bool = Field(False, description="Nesterov momentum (SGD).")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay.")
    norm_decay: bool = Field(True, description="Apply weight decay to norm layers and biases too.")
    warmup_iterations: int = Field(500, ge=0, description="Steps of linear warm-up.")
    warmup_factor: float = Field(0.001, gt=0, le=1, description="Share of the learning rate at the first step.")
    lr_schedule: Literal["step", "cosine", "constant"] = Field("step", description="Course of the learning rate.")
    lr_milestones: list[float] = Field(
        [0.6666667, 0.9166667], description="Shares of training at which a step schedule drops."
    )
    lr_gamma: float = Field(0.1, gt=0, le=1, description="Factor of each drop.")
    clip_grad: float = Field(0.0, ge=0, description="Largest norm of the gradient; 0 for no clipping.")
    ema: bool = Field(False, description="Keep an exponential moving average of the weights and evaluate that.")
    ema_decay: float = Field(0.9998, gt=0, lt=1, description="Decay of the average per step.")
    stage: StageSection = Field(StageSection(), description="What is taken over, trained and started afresh.")
    val_every: int = Field(0, ge=0, description="Steps between evaluations; 0: only at the end.")
    checkpoint_every: int = Field(1000, ge=1, description="Steps between checkpoints.")
    checkpoint_minutes: float = Field(
        10.0, ge=0, description="Minutes after which the next log record is followed by a checkpoint; 0: never."
    )
    nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="What a step does whose loss or gradient is not finite: end the run, or nothing at all."
    )
    max_skipped: int = Field(10, ge=1, description="Steps in a row that nonfinite=skip skips before the run ends.")
    loss_limit: float = Field(0.0, ge=0, description="A larger loss counts as not finite; 0: no limit.")
    watchdog_minutes: float = Field(
        30.0, ge=0, description="Minutes without progress after which the process ends itself, exit code 75; 0: never."
    )
    log_every: int = Field(20, ge=1, description="Steps between log records.")
    patience: int = Field(
        0, ge=0, description="End training after so many evaluations in a row without a better AP; 0: never."
    )
    loggers: list[str] = Field(
        [], description="Where training is recorded besides `results.csv`: tensorboard, wandb, mlflow."
    )
    callbacks: list[str] = Field(
        [], description="Callbacks of your own, each `file.py:Class`, or `file.py` if it holds one."
    )

    # Images
    imgsz: int = Field(800, ge=32, description="Short side of the network input at test, in pixels.")
    max_size: int = Field(1333, ge=32, description="Largest long side, in pixels.")
    train_imgsz: list[int] = Field(
        [640, 672, 704, 736, 768, 800], min_length=1, description="Short sides drawn from in training."
    )
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    aspect_grouping: bool = Field(True, description="Make batches of images of like shape, which need less padding.")
    max_bad_images: int = Field(
        0, ge=0, description="Unreadable training images, per process, that others stand in for; one more is an error."
    )

    # Long tail
    loss: LossSection = Field(LossSection(), description="Classification loss and its hyper-parameters.")
    auxiliary: AuxiliarySection = Field(AuxiliarySection(), description="Auxiliary loss and its options.")
    calibrate: CalibrateSection = Field(CalibrateSection(), description="Score calibration and its options.")
    selector: SelectorSection = Field(SelectorSection(), description="Region selector and its options.")
    memory: MemorySection = Field(MemorySection(), description="Feature memory and its options.")
    ignore_unverified: bool = Field(
        False, description="Leave out of the classification loss, per image, the classes nobody looked for (LVIS)."
    )
    class_parents: str | None = Field(
        None, description="A JSON object {class: parent} for losses that group by it; null: the file's supercategories."
    )
    sampler: Literal["random", "rfs", "class_balanced"] = Field("random", description="Image sampler of training.")
    empty_images: bool = Field(
        False, description="Train on images without any object too; the reference recipes leave them out."
    )
    box_masks: bool = Field(
        False, description="Train objects without a mask with their box as one: for data that has boxes alone."
    )
    rfs_threshold: float = Field(0.001, gt=0, le=1, description="Image share below which a class is repeated.")
    rfs_power: float = Field(0.5, gt=0, le=1, description="Repeat factor = (threshold / share) ** power.")
    rfs_rounding: Literal["stochastic", "ceil"] = Field(
        "stochastic", description="How fractional factors are rounded: drawn anew each epoch, or up."
    )
    paste: PasteSection = Field(PasteSection(), description="Objects pasted into training images.")
    track_gradients: bool = Field(
        False, description="Add up, per class, what pushes its score up and down; written to `gradients.csv`."
    )
    bands: BandsSection = Field(BandsSection(), description="Frequency bands.")

    # Model
    backbone: BackboneSection = Field(BackboneSection(), description="Backbone.")
    neck: NeckSection = Field(NeckSection(), description="Feature pyramid and anchors.")
    rpn: RpnSection = Field(RpnSection(), description="Region proposals.")
    roi: RoiSection = Field(RoiSection(), description="Sampling of regions in training.")
    box: BoxSection = Field(BoxSection(), description="Box head.")
    mask: MaskSection = Field(MaskSection(), description="Mask head.")
