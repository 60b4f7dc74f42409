"""The typed configuration: the one source of keys, types, ranges, choices, defaults and help."""

from __future__ import annotations

from typing import Literal

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
    ShapesSection,
    StageSection,
)


class Config(Section):
    """Everything a run is told. Frozen; written to `args.yaml` and read back with `cfg=`."""

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
    resume: bool = Field(False, description="Continue the run of `weights=`, of `name=`, or the newest one.")

    # Machine
    device: str = Field("auto", description="auto, cpu, cuda, or cuda:N.")
    workers: int = Field(2, ge=0, description="Data loading processes per rank.")
    seed: int = Field(0, ge=0, description="Seed of weights, sampling and augmentation.")
    amp: Literal["none", "bf16", "fp16"] = Field("none", description="Autocast precision of training.")

    # Length and optimiser
    epochs: float | None = Field(None, gt=0, description="Length of training in epochs of the sampler.")
    iterations: int | None = Field(None, gt=0, description="Length of training in steps, instead of epochs.")
    batch: int = Field(16, ge=1, description="Images per optimiser step, over all processes.")
    accumulate: int = Field(1, ge=1, description="Forward passes per optimiser step; divides `batch`.")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="Optimiser.")
    lr: float = Field(0.02, gt=0, description="Peak learning rate.")
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

    # Images
    imgsz: int = Field(800, ge=32, description="Short side of the network input at test, in pixels.")
    max_size: int = Field(1333, ge=32, description="Largest long side, in pixels.")
    train_imgsz: list[int] = Field(
        [640, 672, 704, 736, 768, 800], min_length=1, description="Short sides drawn from in training."
    )
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a horizontal flip.")

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

    # Inference and evaluation
    conf: float | None = Field(
        None, ge=0, le=1, description="Score threshold; default 1e-4 for val and export, 0.3 for predict."
    )
    iou: float = Field(0.5, gt=0, le=1, description="IoU of the per-class NMS.")
    max_det: int = Field(300, ge=1, description="Detections kept per image.")
    nms_candidates: int = Field(5000, ge=1, description="Highest-scoring candidates per image that enter NMS.")
    split: Literal["train", "val"] = Field("val", description="Split that `val` evaluates.")
    protocol: Literal["auto", "lvis", "coco", "lvis_fixed", "lvis_pooled"] = Field(
        "auto",
        description="Scoring rules; auto: those of the data; lvis_fixed, lvis_pooled: 10,000 detections per class.",
    )
    boundary: bool = Field(False, description="Score masks by boundary IoU too.")
    scorer: Literal["aegl", "official"] = Field(
        "aegl", description="official: figures of the lvis package or pycocotools, and how far aegl's are from them."
    )
    confusions: int = Field(50, ge=0, description="How many of the most frequent confusions of classes to list.")
    predictions: str | None = Field(
        None, description="A COCO/LVIS results JSON, or a run folder, to score, not a model."
    )

    # Predict
    source: str | None = Field(None, description="An image, a folder or a glob.")
    save: bool = Field(True, description="Write the drawn images.")

    # Export
    format: Literal["onnx", "triton"] = Field(
        "onnx", description="onnx: a file beside the weights; triton: a model repository of it too, in `output`."
    )
    opset: int | None = Field(
        None, ge=18, description="ONNX opset; default: the newest that ONNX Runtime's GPU kernels cover."
    )
    dynamic: bool = Field(
        True, description="Dynamic height and width (batch is always dynamic); false: fixed at imgsz."
    )
    parity: bool = Field(True, description="Compare the exported file with PyTorch and write the report.")
    masks: Literal["roi", "paste", "none"] = Field(
        "roi",
        description="Masks of the exported file: over each box, over the whole network input, or none at all.",
    )
    preprocess: bool = Field(False, description="The exported file takes uint8 images [B, H, W, 3] as they are stored.")
    half: bool = Field(False, description="Export layers in fp16; boxes, RoIAlign, NMS, input and outputs stay fp32.")
    int8: bool = Field(False, description="Export layers quantised to int8, calibrated on images of yours.")
    calibration_images: str | None = Field(
        None, description="An image, a folder or a glob that int8 is calibrated on; default: images of the val split."
    )
    calibration_count: int = Field(100, ge=1, description="Images that int8 is calibrated on, evenly spread.")
    ap_images: int = Field(
        200, ge=0, description="Val images on which AP of half and int8 files is compared with fp32; 0: no comparison."
    )
    placement: bool = Field(
        False, description="Run the exported file once with a profiler: which operator ran where, and for how long."
    )
    strict_gpu: bool = Field(
        False, description="Fail unless CUDA comes up and every heavy operator of the exported file runs on it."
    )
    instances: int = Field(1, ge=1, description="Copies of the model on each GPU (format=triton).")
    ensemble: bool = Field(
        False, description="Add models that take image files and give JSON to the Triton repository."
    )

    # Benchmark
    engines: list[str] | None = Field(
        None, min_length=1, description="Rows of `benchmark`: pytorch, compiled, onnx-cpu, onnx-cuda; default: all."
    )
    batches: list[int] = Field([1, 4], min_length=1, description="Batch sizes that `benchmark` measures.")
    repeats: int = Field(20, ge=1, description="Timed runs of each row of `benchmark`.")
    ap: bool = Field(False, description="Evaluate PyTorch and each ONNX provider on `split` in `benchmark` too.")

    # Serving
    host: str = Field("127.0.0.1", description="Address that `serve` listens on; 0.0.0.0 for every network.")
    port: int = Field(8000, ge=0, le=65535, description="Port that `serve` listens on; 0 for any free one.")
    threads: int = Field(0, ge=0, description="Threads of ONNX Runtime on the CPU; 0 for its own choice.")
    max_batch: int = Field(8, ge=1, description="Images in a batch at most, of `serve` and of format=triton.")
    max_delay_ms: float = Field(5.0, ge=0, description="Milliseconds that an image waits for others to join its batch.")
    max_pixels: int = Field(
        50_000_000, ge=1, le=178_956_970, description="Largest image file in pixels; larger ones are not decoded."
    )
    max_body_mb: float = Field(32.0, gt=0, description="Longest body of a request in MiB.")
    concurrency: int = Field(64, ge=1, description="Requests in progress at once; further ones are refused with 503.")
    timeout_s: float = Field(30.0, gt=0, description="Seconds after which a request is answered with 504.")

    # Data verbs
    to: Literal["coco", "lvis", "yolo", "voc"] | None = Field(None, description="Format that `data convert` writes.")
    read_as: Literal["auto", "coco", "lvis", "yolo", "voc"] = Field(
        "auto", description="Format that `data convert` reads; auto: told by the files."
    )
    output: str | None = Field(
        None,
        description="New folder that `data convert`, `split` and `segments` write; where `data coco_lt`, `plot` and "
        "`report` put their files; the model repository of format=triton.",
    )
    fraction: float = Field(0.2, gt=0, lt=1, description="Share of images that `data split` puts into val.")
    images: str | None = Field(
        None, description="A list of image ids or file names for `data coco_lt`; default: draw by the published bins."
    )

    per_class: int = Field(
        100, ge=1, description="How many objects of each class `data segments` cuts out at most, the largest ones."
    )

    # Comparison
    methods: list[str] | None = Field(
        None, min_length=1, description="Entries of `compare`: methods, each with keys of its own as `name+key=value`."
    )
    recipes: list[str] | None = Field(None, min_length=1, description="Entries of `compare`: recipes, written alike.")
    entries: str | None = Field(
        None, description="Entries of `compare` from a YAML file: a list of name, method or recipe, and keys."
    )
    runs: list[str] | None = Field(
        None,
        min_length=1,
        description="Folders of runs, the baseline first, for `compare`, `plot` and `report`; nothing is trained.",
    )
    seeds: int = Field(3, ge=1, description="Runs of each entry of `compare`; their seeds are counted up from `seed`.")

    # Figures
    report: bool = Field(True, description="End `train` and `val` with `report.html` in the run's folder.")
    figures: list[str] | None = Field(
        None, min_length=1, description="Figures that `plot` draws; default: all that can be made of what is given."
    )
    order: Literal["each", "baseline", "count"] = Field(
        "each", description="Order of the classes in class_ap: by each run's own AP, the first run's, or instances."
    )
    measure: Literal["share", "fg_over_bg"] = Field(
        "share", description="Measure of `gradients`: foreground's share of the negative gradient, or its ratio."
    )

    # The embedded data set
    shapes: ShapesSection = Field(ShapesSection(), description="Size of `data=shapes_lt`.")


GROUPS = {
    "data": "What to run",
    "project": "Where things go",
    "device": "Machine",
    "epochs": "Length of training and optimiser",
    "imgsz": "Images",
    "loss": "Long tail",
    "backbone": "Model",
    "conf": "Inference and evaluation",
    "source": "Prediction",
    "format": "Export",
    "engines": "Benchmark",
    "host": "Serving",
    "to": "Data verbs",
    "methods": "Comparison",
    "report": "Figures",
    "shapes": "The embedded data set",
}
"""Titles of the groups of keys, by the first key of each; a group reaches to the next one."""
