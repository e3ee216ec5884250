"""Words of other tools and about 100 mistakes: what is typed, and what the answer must have."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hydra.errors import HydraException

from detector.cli.main import VERBS, unknown_verb
from detector.config.errors import ConfigError
from detector.config.foreign_words import VERBS as FOREIGN_VERBS
from detector.config.foreign_words import WORDS
from detector.config.overrides import explain, parse_arguments
from detector.config.reference import every_option

MISTAKES = """
train imgsz=640 -> Write data.image_size=640.
train img_size=(480,640) -> Write data.image_size=640.
train epochs=100 -> Write training.max_epochs=100.
train batch=16 -> Write data.batch_size=16.
train batch_size=16 -> Write data.batch_size=16.
train lr=0.01 -> Write optimizer.lr=0.01.
train lr0=0.01 -> Write optimizer.lr=0.01.
train lrf=0.1 -> Write lr_scheduler.final_factor=0.1.
train workers=8 -> Write data.num_workers=8.
train patience=50 -> Write training.early_stopping_patience=50.
train project=runs/mine -> Write output_dir=runs/mine.
train save_dir=runs/mine -> Write output_dir=runs/mine.
train cfg=yolov8.yaml -> experiment=NAME
train weights=x.pth -> Write model.weights=x.pth.
train pretrained=true -> model=fcos_coco
train pretrained=True -> model.backbone.weights=IMAGENET1K_V1
train pretrained=x.pth -> Write model.weights=x.pth.
train checkpoint=last.ckpt -> training.resume=last.ckpt
train resume=runs/a/last.ckpt -> Write training.resume=runs/a/last.ckpt.
train resume=true -> training.resume=RUN
train half=true -> Write training.precision=16-mixed.
train amp=True -> Write training.precision=16-mixed.
train amp=False -> Write training.precision=32-true.
train precision=16 -> Write training.precision=16-mixed.
train optimizer=SGD -> Did you mean optimizer=sgd?
train optimizer=Adam -> Did you mean optimizer=adamw?
train cos_lr=true -> Write lr_scheduler=cosine.
train freeze=2 -> Write model.backbone.frozen_stages=2.
train mosaic=1.0 -> data/augmentation=none, flip or strong
train fliplr=0.5 -> data/augmentation=none, flip or strong
train hsv_h=0.1 -> '+data.augmentation.NAME={_target_: albumentations.CLASS
train data.augmentation.mosaic=1 -> data/augmentation=none, flip or strong
train close_mosaic=10 -> data/augmentation=none, flip or strong
train max_det=300 -> Write model.head.detections_per_image=300.
train model=faster_rcnn max_det=300 -> Write model.head.roi.detections_per_image=300.
train iou=0.5 -> Write model.head.nms_iou_threshold=0.5.
train conf=0.5 -> Write model.head.score_threshold=0.5.
train device=cuda:0 -> Write training.accelerator=gpu.
train device=0 -> Write training.accelerator=gpu.
train device=cpu -> Write training.accelerator=cpu.
train device=0,1 -> Write training.accelerator=gpu training.devices=2.
train gpus=2 -> Write training.devices=2.
train num_classes=3 -> Classes come from the annotation files
train model.num_classes=3 -> Classes come from the annotation files
train nc=80 -> Classes come from the annotation files
train logger=wandb -> TensorBoard files
train wandb=true -> TensorBoard files
train save_period=5 -> checkpoints/best.ckpt and last.ckpt
train cache=ram -> there is no cache
train momentum=0.9 -> Write optimizer=sgd optimizer.momentum=0.9.
train weight_decay=0.1 -> Write optimizer.weight_decay=0.1.
train warmup_epochs=3 -> lr_scheduler.warmup_steps counts optimizer steps
train nbs=64 -> Write optimizer.reference_batch_size=64.
train accumulate=4 -> Write training.accumulate_grad_batches=4.
train multi_scale=true -> data.image_size.min_size=[640,704,768,800]
train rect=true -> Write data.group_by_aspect_ratio=true.
train val=false -> training.check_val_every_n_epoch
train task=detect -> The verb says it
train exist_ok=true -> choose another output_dir
train backbone=resnet50 -> Write model/backbone=resnet50.
train stages=3,4 -> Write model.backbone.deform.stages=[3,4].
train stages=(3,4) -> Write model.backbone.deform.stages=[3,4].
train model.backbone.deform.stages=3,4 -> 'model.backbone.deform.stages=[3,4]'
train seed=0,1 -> With -m it runs once for each of them
compare seeds=0,1 -> 'seeds=[0,1]'
train model/backbone=resnet152 -> resnet152.yaml. There are: resnet, resnet101, resnet18
train model=last.ckpt -> model.weights=last.ckpt starts from its weights
train model=yolov8n.pt -> model.weights=yolov8n.pt
train data=bccd -> data=coco data.root=bccd
train data=v/data.yaml -> YOLO
train data=coco.json -> data=coco data.train.annotations=coco.json
train --data bccd -> Write data=coco data.root=bccd.
train --imgsz 640 --epochs 3 -> Write training.max_epochs=3.
train --config-file x.yaml -> experiment=NAME
train --num-gpus 2 -> Write training.devices=2.
train --eval-only -> detector evaluate checkpoint=
train SOLVER.BASE_LR=0.02 -> Write optimizer.lr=0.02.
train SOLVER.IMS_PER_BATCH=16 -> Write data.batch_size=16.
train SOLVER.MAX_ITER=90000 -> training.max_epochs
train SOLVER.STEPS=(60000,80000) -> lr_scheduler.milestones
train SOLVER.GAMMA=0.1 -> Write lr_scheduler=multistep lr_scheduler.gamma=0.1.
train SOLVER.AMP.ENABLED=True -> Write training.precision=16-mixed.
train MODEL.WEIGHTS=x.pth -> Write model.weights=x.pth.
train MODEL.DEVICE=cuda -> Write training.accelerator=gpu.
train MODEL.RESNETS.DEPTH=50 -> Write model/backbone=resnet50.
train MODEL.BACKBONE.FREEZE_AT=2 -> Write model.backbone.frozen_stages=2.
train MODEL.ROI_HEADS.NUM_CLASSES=3 -> Classes come from the annotation files
train DATASETS.TRAIN=coco_2017_train -> data=coco data.root=FOLDER
train INPUT.MIN_SIZE_TRAIN=(640,800) -> Write data.image_size.min_size=[640,800].
train INPUT.MAX_SIZE_TRAIN=1333 -> Write data.image_size.max_size=1333.
train DATALOADER.NUM_WORKERS=4 -> data.num_workers=4
train TEST.EVAL_PERIOD=2 -> Write training.check_val_every_n_epoch=2.
train OUTPUT_DIR=out -> output_dir=out
train SEED=3 -> seed=3
train --cfg-options optimizer.lr=0.1 -> Options are given by themselves
train --work-dir out -> Write output_dir=out.
train --launcher pytorch -> training.devices=2
train --resume -> training.resume=RUN
train --amp -> Write training.precision=16-mixed.
train --auto-scale-lr -> It is always on
train train_cfg.max_epochs=24 -> training.max_epochs=24
train train_cfg.val_interval=2 -> Write training.check_val_every_n_epoch=2.
train train_dataloader.batch_size=4 -> data.batch_size=4
train train_dataloader.num_workers=4 -> data.num_workers=4
train optim_wrapper.optimizer.lr=0.1 -> optimizer.lr=0.1
train randomness.seed=3 -> Write seed=3.
train load_from=x.pth -> model.weights=x.pth starts from its weights
train resume_from=x.ckpt -> Write training.resume=x.ckpt.
train model.bbox_head.num_classes=3 -> Classes come from the annotation files
train trainer.max_epochs=3 -> training.max_epochs=3
train trainer.gpus=2 -> Write training.devices=2.
train best.ckpt -> Write model.weights=best.ckpt.
train my/folder -> Write data=coco data.root=my/folder.
predict best.ckpt pics -> Write checkpoint=best.ckpt source=pics.
predict model=best.ckpt -> Write checkpoint=best.ckpt.
predict weights=best.ckpt -> Write checkpoint=best.ckpt.
predict conf=0.5 -> Write score_threshold=0.5.
predict --conf 0.5 -> Write score_threshold=0.5.
predict device=cuda:0 -> Write accelerator=gpu.
predict batch=8 -> Write batch_size=8.
predict images=pics -> Write source=pics.
predict save_txt=true -> predictions.json
predict epochs=3 -> training.max_epochs=3 is for another verb
evaluate best.ckpt -> Write checkpoint=best.ckpt.
evaluate results.json -> Write predictions=results.json.
evaluate data=bccd -> Write data.root=bccd.
export best.ckpt -> Write checkpoint=best.ckpt.
export opset=17 -> opset 20
export model=best.ckpt -> Write checkpoint=best.ckpt.
compare a b -> Write runs=[a,b].
""".strip().splitlines()


@pytest.fixture(autouse=True)
def _in_a_folder_with_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bccd").mkdir()
    monkeypatch.chdir(tmp_path)


@cache
def at_once(verb: str) -> dict[str, str]:
    """The answers to the rows of one override: together, as each composition takes half a second."""
    typed = [row.partition(" -> ")[0].split() for row in MISTAKES]
    words = [row[1] for row in typed if row[0] == verb and len(row) == 2 and is_override(row[1])]
    arguments = parse_arguments(verb, words)
    problems = explain(arguments, HydraException("unexplained"))
    return {word: problems.get(o, "") for word, o in zip(words, arguments.overrides, strict=True)}


def is_override(word: str) -> bool:
    return "=" in word and not word.startswith("-")


def message_on(verb: str, words: list[str]) -> str:
    if len(words) == 1 and is_override(words[0]):
        return at_once(verb)[words[0]]
    try:
        return "\n".join(explain(parse_arguments(verb, words), HydraException("unexplained")).values())
    except ConfigError as error:
        return str(error)


@pytest.mark.parametrize("row", MISTAKES)
def test_mistake_is_answered_with_our_word_and_the_same_value(row: str) -> None:
    typed, _, answer = row.partition(" -> ")
    verb, *words = typed.split()
    assert answer in message_on(verb, words)


@cache
def keys() -> set[str]:
    options = {option.key for option in every_option({verb.name: verb.module for verb in VERBS.values()})}
    groups = {"data", "model", "optimizer", "lr_scheduler", "data/augmentation", "model/backbone"}
    return {*options, *groups, "model/backbone/deform", "model/neck", "model/head", "data.image_size"}


@pytest.mark.parametrize("word", [word for word, row in WORDS.items() if isinstance(row, tuple)])
def test_overrides_of_the_table_name_options_of_ours(word: str) -> None:
    assert word == word.lower()
    for override in (part for words in WORDS[word] for part in words.split()):
        assert override.partition("=")[0] in keys()


@pytest.mark.parametrize("word", FOREIGN_VERBS)
def test_verb_of_another_tool_is_answered(word: str) -> None:
    assert FOREIGN_VERBS[word] in VERBS
    assert unknown_verb(word).endswith(f"Did you mean {FOREIGN_VERBS[word]}?")
