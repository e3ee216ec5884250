"""Words of other tools, as one table: what each is called here, with the same value.

A tuple holds overrides, of which the first that the verb has is the answer; a text is the answer itself.
{} is the value, {list} the value in brackets, {device} its kind (cpu, gpu, mps), {last} the last of several.
A row `word=value` is for that value alone. Rows are in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Answer = str | tuple[str, ...]

_CLASSES = "classes come from the annotation files of the data; give no number of them"
_AUGMENTATION = (
    "augmentation is data/augmentation=none, flip or strong. To add a transform of albumentations: "
    "'+data.augmentation.NAME={_target_: albumentations.CLASS, p: 0.5}'"
)
_LOGGERS = (
    "a run always writes TensorBoard files (tensorboard/ in its folder), metrics.csv and report.html. Other "
    "loggers can import the TensorBoard files"
)
_LAUNCH = "training starts its own processes, one a device: training.devices=2, or auto for all"
_FILES = "a run keeps checkpoints/best.ckpt and last.ckpt, always"
_WRITTEN = "predict writes predictions.json, predictions.csv and drawings (draw=true) to its output_dir"
_CONFIG = (
    "configurations are files of groups: experiment=NAME for configs/experiment/NAME.yaml, your own with "
    "--config-dir DIR for DIR/experiment/NAME.yaml"
)
_WEIGHTS = ("checkpoint={}", "model.weights={}")
_START = (
    "model.weights={} starts from its weights, training.resume={} goes on with its run; in predict, evaluate "
    "and export it is checkpoint={}"
)
_PRETRAINED = (
    "model=fcos_coco and model=faster_rcnn_coco start from weights trained on COCO; model.weights=FILE is "
    "for others, model.backbone.weights=IMAGENET1K_V1 for a backbone alone"
)
_BATCH = ("data.batch_size={}", "batch_size={}", "data.val_batch_size={}")
_WORKERS = ("data.num_workers={}",)
_LR = ("optimizer.lr={}",)
_EPOCHS = ("training.max_epochs={}",)
_STEPS = "training lasts training.max_epochs passes over the data, not steps: steps * batch size / images"
_DEVICE = ("training.accelerator={device}", "accelerator={device}")
_DEVICES = ("training.devices={}",)
_SCORE = ("score_threshold={}", "model.head.roi.score_threshold={}", "model.head.score_threshold={}")
_NMS = ("model.head.roi.nms_iou_threshold={}", "model.head.nms_iou_threshold={}")
_MOST = ("model.head.roi.detections_per_image={}", "model.head.detections_per_image={}")
_FOLDER = ("output_dir={}",)
_SOURCE = ("source={}",)
_ROOT = "data=coco data.root={}"
_MIXED = ("training.precision=16-mixed",)
_FULL = ("training.precision=32-true",)
_RESUME = "training.resume=RUN, the folder of a run, goes on with it"
_SIZE = ("data.image_size={last}", "image_size=[{},{}]")

WORDS: Mapping[str, Answer] = {
    # Ultralytics, and words of many tools
    **dict.fromkeys(("imgsz", "img_size", "image_size", "imagesize", "img", "input_size", "size"), _SIZE),
    **dict.fromkeys(("epochs", "num_epochs", "max_epoch", "epoch", "n_epochs", "total_epochs"), _EPOCHS),
    **dict.fromkeys(("iterations", "max_iter", "max_steps", "steps", "num_iterations", "iters"), _STEPS),
    **dict.fromkeys(("batch", "batch_size", "batchsize", "bs", "ims_per_batch", "samples_per_gpu"), _BATCH),
    **dict.fromkeys(("lr", "lr0", "learning_rate", "base_lr"), _LR),
    "lrf": ("lr_scheduler.final_factor={}",),
    **dict.fromkeys(("device", "accelerator"), _DEVICE),
    **dict.fromkeys(("gpus", "num_gpus", "n_gpus", "num_devices", "devices", "ngpu"), _DEVICES),
    **dict.fromkeys(("nproc_per_node", "launcher", "dist_url", "num_machines", "nnodes"), _LAUNCH),
    **dict.fromkeys(("workers", "num_workers", "workers_per_gpu"), _WORKERS),
    **dict.fromkeys(("conf", "score_thr", "confidence", "score_thresh", "conf_thres", "threshold"), _SCORE),
    **dict.fromkeys(("iou", "nms_thr", "iou_thres", "nms_thresh", "nms"), _NMS),
    **dict.fromkeys(("max_det", "max_per_img", "detections_per_image"), _MOST),
    **dict.fromkeys(("num_classes", "nc", "classes", "names", "class_names", "single_cls"), _CLASSES),
    **dict.fromkeys(("weights", "ckpt", "model_path", "weight"), _WEIGHTS),
    **dict.fromkeys(("checkpoint", "ckpt_path", "load_from", "init_checkpoint", "finetune"), _START),
    "model": ("checkpoint={}",),
    "pretrained": ("model.weights={}",),
    "pretrained=true": _PRETRAINED,
    "pretrained=false": "it is the default: model.weights=null model.backbone.weights=null",
    **dict.fromkeys(("resume", "resume_from", "resume_from_checkpoint"), ("training.resume={}",)),
    "resume=true": _RESUME,
    "resume=...": _RESUME,
    **dict.fromkeys(
        ("logger", "loggers", "wandb", "mlflow", "tensorboard", "log_dir", "vis_backends"), _LOGGERS
    ),
    **dict.fromkeys(("project", "save_dir", "work_dir", "outdir", "output", "out_dir", "out"), _FOLDER),
    "exist_ok": "a folder that holds a run is never overwritten: choose another output_dir",
    **dict.fromkeys(("cfg", "config", "config_file", "config_name", "opts"), _CONFIG),
    **dict.fromkeys(("cfg_options", "options"), "options are given by themselves: key=value ..."),
    **dict.fromkeys(("input", "images", "image", "img_path", "path", "folder"), _SOURCE),
    **dict.fromkeys(
        ("data", "dataset", "data_root", "data_dir", "dataset_dir", "coco_path", "root"),
        (_ROOT, "data.root={}"),
    ),
    **dict.fromkeys(
        ("ann_file", "train_ann", "train_json", "train_annotations"), ("data.train.annotations={}",)
    ),
    **dict.fromkeys(("val_ann", "val_json", "val_annotations"), ("data.val.annotations={}",)),
    **dict.fromkeys(("img_prefix", "train_images", "train_dir"), ("data.train.images={}",)),
    **dict.fromkeys(("val_images", "val_dir"), ("data.val.images={}",)),
    **dict.fromkeys(("half", "amp", "fp16", "mixed_precision", "use_amp"), _MIXED),
    **dict.fromkeys(("half=false", "amp=false", "fp16=false"), _FULL),
    "precision=16": _MIXED,
    "precision=bf16": ("training.precision=bf16-mixed",),
    "precision=32": _FULL,
    "bf16": ("training.precision=bf16-mixed",),
    "patience": ("training.early_stopping_patience={}",),
    "cos_lr": ("lr_scheduler=cosine",),
    "scheduler": ("lr_scheduler={}",),
    **dict.fromkeys(
        ("scheduler=multisteplr", "lr_scheduler=multisteplr", "scheduler=step"), ("lr_scheduler=multistep",)
    ),
    **dict.fromkeys(
        ("milestones", "lr_steps", "lr_drop"), ("lr_scheduler=multistep lr_scheduler.milestones={list}",)
    ),
    "gamma": ("lr_scheduler=multistep lr_scheduler.gamma={}",),
    "momentum": ("optimizer=sgd optimizer.momentum={}",),
    "weight_decay": ("optimizer.weight_decay={}",),
    **dict.fromkeys(
        ("warmup_epochs", "warmup"), "lr_scheduler.warmup_steps counts optimizer steps, not epochs"
    ),
    **dict.fromkeys(("warmup_iters", "warmup_steps"), ("lr_scheduler.warmup_steps={}",)),
    **dict.fromkeys(
        ("grad_clip", "clip_grad", "gradient_clip_val", "max_norm"), ("training.gradient_clip_val={}",)
    ),
    **dict.fromkeys(("accumulate", "accumulate_grad_batches"), ("training.accumulate_grad_batches={}",)),
    "nbs": ("optimizer.reference_batch_size={}",),
    **dict.fromkeys(("ema", "model_ema"), "training.ema_decay=0.999 keeps a moving average of the weights"),
    "compile": ("training.compile={}",),
    **dict.fromkeys(
        ("val_interval", "eval_period", "eval_interval"), ("training.check_val_every_n_epoch={}",)
    ),
    "val=false": "the last epoch is always validated; training.check_val_every_n_epoch=100 leaves out others",
    **dict.fromkeys(("save_period", "save", "checkpoint_interval", "save_best"), _FILES),
    "freeze": ("model.backbone.frozen_stages={}",),
    "freeze_at": ("model.backbone.frozen_stages={}",),
    "backbone": ("model/backbone={}",),
    "neck": ("model/neck={}",),
    "head": ("model/head={}",),
    "depth": ("model/backbone=resnet{}",),
    "arch": ("model={}",),
    "stages": ("model.backbone.deform.stages={list}",),
    "dcn": ("model/backbone/deform=v2 model.backbone.deform.stages=[3,4,5]",),
    "rect": ("data.group_by_aspect_ratio={}",),
    "multi_scale": "give several sizes to sample: data.image_size.min_size=[640,704,768,800]",
    "fraction": "training.limit_train_batches=N shortens each epoch to N batches",
    "fast_dev_run": ("training.limit_train_batches=2 training.limit_val_batches=2 training.max_epochs=1",),
    **dict.fromkeys(
        (
            "mosaic",
            "mixup",
            "copy_paste",
            "hsv_h",
            "hsv_s",
            "hsv_v",
            "degrees",
            "translate",
            "shear",
            "perspective",
        ),
        _AUGMENTATION,
    ),
    **dict.fromkeys(
        ("flipud", "fliplr", "erasing", "close_mosaic", "auto_augment", "augment", "augmentation"),
        _AUGMENTATION,
    ),
    **dict.fromkeys(("plots", "verbose", "show", "profile"), "report.html always has all figures"),
    **dict.fromkeys(("save_txt", "save_conf", "save_crop", "save_json", "save_frames"), _WRITTEN),
    **dict.fromkeys(("vid_stride", "stream", "stream_buffer"), "predict reads images only, no video"),
    **dict.fromkeys(("task", "mode"), "the verb says it: detector train, evaluate, predict or export"),
    "cache": "images are read from disk by data.num_workers processes; there is no cache",
    **dict.fromkeys(
        ("opset", "dynamic", "simplify", "int8"), "an ONNX file has dynamic sizes and opset 20; no option"
    ),
    **dict.fromkeys(("eval_only", "test_only", "evaluate"), "its own verb: detector evaluate checkpoint=..."),
    "auto_scale_lr": "it is always on: optimizer.lr is for optimizer.reference_batch_size images per step",
    # Detectron2
    "model.weights": _WEIGHTS,
    "model.device": _DEVICE,
    "model.mask_on": "boxes only: masks are a branch of your own, see docs/architecture.md",
    "model.resnets.depth": ("model/backbone=resnet{}",),
    "model.backbone.freeze_at": ("model.backbone.frozen_stages={}",),
    "model.resnets.norm": ("model.backbone.norm={}",),
    "model.roi_heads.score_thresh_test": _SCORE,
    "model.roi_heads.nms_thresh_test": _NMS,
    "model.roi_heads.batch_size_per_image": ("model.head.roi.batch_size_per_image={}",),
    **dict.fromkeys(
        ("datasets.train", "datasets.test"), "datasets are folders, not names: data=coco data.root=FOLDER"
    ),
    "input.min_size_train": ("data.image_size.min_size={list}",),
    "input.min_size_test": "evaluation uses the last value of data.image_size.min_size",
    **dict.fromkeys(("input.max_size_train", "input.max_size_test"), ("data.image_size.max_size={}",)),
    "input.random_flip": ("data/augmentation=flip",),
    "solver.gamma": ("lr_scheduler=multistep lr_scheduler.gamma={}",),
    "solver.steps": "lr_scheduler=multistep lr_scheduler.milestones=[8,11] counts epochs, not steps",
    "solver.warmup_iters": ("lr_scheduler.warmup_steps={}",),
    "solver.amp.enabled": _MIXED,
    "solver.checkpoint_period": _FILES,
    "test.eval_period": ("training.check_val_every_n_epoch={}",),
    "test.detections_per_image": _MOST,
    # MMDetection
    "randomness.seed": ("seed={}",),
    "img_scale": ("data.image_size={last}",),
    "train_dataloader.dataset.ann_file": ("data.train.annotations={}",),
    "default_hooks.checkpoint.interval": _FILES,
}
VERBS: Mapping[str, str] = {
    **dict.fromkeys(("val", "validate", "test", "eval", "score", "benchmark"), "evaluate"),
    **dict.fromkeys(("detect", "infer", "inference", "demo", "track"), "predict"),
    **dict.fromkeys(("fit", "finetune", "resume"), "train"),
    **dict.fromkeys(("summary", "flops", "describe"), "info"),
    **dict.fromkeys(("onnx", "convert"), "export"),
}
_DEVICES_OF = re.compile(r"\d+(,\d+)+")


def answer(key: str, value: str, *, whole: bool, has: Callable[[str], bool]) -> str | None:
    """Return what a word that is no option is called here, with the same value; None if no row has it.

    `whole`: the word as it is, else its last part (`train.epochs`). `has` says whether the verb has an
    option.
    """
    name = key.lower().replace("-", "_")
    name = name if whole else name.rpartition(".")[2]
    value = value.strip("'\" ")
    plain = value.lower()
    if _DEVICES_OF.fullmatch(plain) and name in ("device", "gpus"):
        count = plain.count(",") + 1
        return f"Write training.accelerator=gpu training.devices={count}"
    row = WORDS.get(f"{name}={plain}", WORDS.get(name))
    if row is None:
        return None
    if isinstance(row, str):
        text = row.replace("{}", value or "...")
        return text[0].upper() + text[1:] if text.partition(" ")[0].isalpha() else text
    fitting = [words for words in row if has(words.partition("=")[0])]
    if not fitting:
        return f"{_filled(row[0], value)} is for another verb: see detector train --help"
    return f"Write {_filled(fitting[0], value)}"


def _filled(words: str, value: str) -> str:
    value = value or "..."
    return (
        words.replace("{list}", as_list(value))
        .replace("{device}", _device(value))
        .replace("{last}", re.split(r"[\[\](),x ]+", value.strip("[]() "))[-1])
        .replace("{}", value)
    )


def as_list(value: str) -> str:
    """Return `3,4`, `(3,4)` or `3` as `[3,4]` or `[3]`; the brackets of a list stay."""
    return value if value.startswith("[") else f"[{value.strip('()')}]"


def _device(value: str) -> str:
    return value if value in ("cpu", "mps", "auto", "gpu") else "gpu"


def lone_words(verb: str, words: Sequence[str]) -> str | None:
    """Return the overrides that positional words of a verb probably mean, in order; None if it is unclear."""
    overrides = [_override_for(verb, word) for word in words]
    if verb == "compare" and len(words) > 1:
        return f"Write runs=[{','.join(words)}]"
    return None if None in overrides else f"Write {' '.join(word for word in overrides if word)}"


def _override_for(verb: str, word: str) -> str | None:
    if word.endswith((".ckpt", ".pt", ".pth")):
        return f"model.weights={word}" if verb in ("train", "info") else f"checkpoint={word}"
    if verb == "evaluate":
        return f"predictions={word}" if word.endswith(".json") else f"data.root={word}"
    if verb in ("predict", "export"):
        return f"source={word}"
    if verb == "train" and ("/" in word or Path(word).is_dir()):
        return _ROOT.replace("{}", word)
    return None


def own_file(group: str, choice: str) -> str | None:
    """Return what a path typed as the choice of a group (`data=FOLDER`, `model=x.ckpt`) is called here."""
    path = Path(choice)
    if group == "data":
        if choice.endswith((".yaml", ".yml")):
            return (
                "A YAML file of a YOLO dataset is not read: convert its labels to COCO's JSON, then write "
                "data=coco data.root=FOLDER"
            )
        if choice.endswith(".json"):
            return f"Write data=coco data.train.annotations={choice}, and data.val.annotations=FILE"
        return f"Your own data: data=coco data.root={choice}" if path.exists() or "/" in choice else None
    if choice.endswith((".ckpt", ".pt", ".pth")):
        if group == "model":
            return f"{WORDS['load_from']}".replace("{}", choice)
        return f"Weights to start from: {group.replace('/', '.')}.weights={choice}"
    return None
