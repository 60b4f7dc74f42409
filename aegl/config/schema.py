"""The typed configuration: the one source of keys, types, ranges, choices, defaults and help."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aegl.config.sections import ShapesSection
from aegl.config.training import TrainingConfig


class Config(TrainingConfig):
    """Everything a run is told. Frozen; written to `args.yaml` and read back with `cfg=`."""

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
    source: str | None = Field(
        None,
        description="An image, folder, glob, http(s) address, video, number of a camera, or - for standard input.",
    )
    save: bool = Field(True, description="Write the drawn images, or the drawn video.")
    save_txt: bool = Field(False, description="Write a text file in YOLO's format for each image, with scores.")
    save_json: bool = Field(False, description="Write all results in COCO's format too.")
    save_crops: bool = Field(False, description="Write what is in each box as a picture, by class.")
    slice: int = Field(
        0, ge=0, description="Detect in overlapping squares of this side in pixels too, for huge images; 0: do not."
    )
    slice_overlap: float = Field(0.2, ge=0, le=0.9, description="Share of a side that neighbouring squares overlap.")

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

    # Search of hyper-parameters
    space: str | None = Field(
        None, description="What `tune` searches, from a YAML file, a line `key: range` each; or `space.<key>=<range>`."
    )
    trials: int = Field(20, ge=1, description="Training runs of `tune`, over all its processes.")
    objective: str = Field(
        "fitness",
        description="What `tune` maximises: fitness (mask AP, or box AP without masks), or a figure, e.g. APr, box/AP.",
    )
    startup_trials: int = Field(
        5, ge=1, description="First trials of `tune`, which are drawn at random and end no other one early."
    )
    prune: bool = Field(
        True, description="End trials of `tune` early that are worse than the median of the others at an evaluation."
    )

    # Figures
    report: bool = Field(True, description="End `train` and `val` with `report.html` in the run's folder.")
    figures: list[str] | None = Field(
        None, min_length=1, description="Figures that `plot` draws; default: all that can be made of what is given."
    )
    class_order: Literal["each", "baseline", "count"] = Field(
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
    "space": "Search of hyper-parameters",
    "report": "Figures",
    "shapes": "The embedded data set",
}
"""Titles of the groups of keys, by the first key of each; a group reaches to the next one."""
