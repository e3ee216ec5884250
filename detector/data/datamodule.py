"""The data of one run: from configuration to batches."""

from __future__ import annotations

import gc
import hashlib
import logging
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import cv2
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from detector.coco.annotations import CocoAnnotations
from detector.coco.categories import drop_root_category, require_same_categories, require_unique_names
from detector.coco.image_headers import MAX_IMAGE_PIXELS
from detector.coco.image_values import ImageRange, find_range, range_note, require_ascending
from detector.coco.images import ReadOptions
from detector.coco.layouts import SplitFiles, SplitName, SplitPaths, find_split, for_both_splits
from detector.data.collate import collate
from detector.data.dataset import CocoDataset
from detector.data.objects import note_classes_without_objects, require_objects, with_objects
from detector.data.samplers import EvaluationBatchSampler, TrainBatchSampler
from detector.data.transforms import Augmentation, ImageSize
from detector.data.worker_signals import leave_signals_to_parent
from detector.data.workers import (
    Ledger,
    Limits,
    Loading,
    WatchedDataset,
    collate_to_memory,
    collate_to_pipe,
    largest_batch_bytes,
    plan_loading,
)
from detector.option_types import (
    CheckImages,
    FileNames,
    NonNegativeInt,
    OnBadBox,
    OnBadImage,
    PositiveFloat,
    PositiveInt,
    TaskName,
)
from detector.structures import Batch, KeypointSchema

_log = logging.getLogger(__name__)


@runtime_checkable
class Source(Protocol):
    """A generator of a dataset that does not exist yet."""

    def generate(self, root: Path) -> Path:
        """Return the folder of the dataset, `root` or another, and generate the dataset if it is missing."""
        ...


class DetectionDataModule(LightningDataModule):
    """The training and validation data of a run in COCO format. configs/data/coco.yaml explains each option.

    After `setup("fit")`, `train_set`, `val_set`, `class_names`, `category_ids` (label i is category_ids[i])
    and `num_classes` are available; after `setup("validate")`, all of them except `train_set`.
    """

    def __init__(
        self,
        *,
        root: str | None,
        image_size: ImageSize,
        batch_size: PositiveInt,
        val_batch_size: PositiveInt,
        num_workers: NonNegativeInt,
        seed: NonNegativeInt,
        train: SplitPaths = SplitPaths(),  # noqa: B008 (frozen)
        val: SplitPaths = SplitPaths(),  # noqa: B008
        augmentation: Mapping[str, Any] | None = None,
        on_bad_box: OnBadBox = "error",
        on_bad_image: OnBadImage = "error",
        check_images: CheckImages = "headers",
        drop_images_without_boxes: bool = False,
        group_by_aspect_ratio: bool = True,
        source: Source | None = None,
        image_range: Literal["auto", "full"] | tuple[float, float] = "full",
        max_image_pixels: PositiveInt = MAX_IMAGE_PIXELS,
        file_names: FileNames = "paths",
        worker_timeout_s: PositiveInt = 300,
        boxes_from_masks: bool = False,
        keypoint_flip_pairs: tuple[tuple[str, str], ...] | None = None,
        keypoint_sigmas: tuple[PositiveFloat, ...] | None = None,
    ) -> None:
        super().__init__()
        require_ascending(image_range)
        self.root = root
        self.image_size = image_size
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._paths: dict[SplitName, SplitPaths] = {"train": train, "val": val}
        self._augmentation = Augmentation(augmentation) if augmentation else None
        self._on_bad_box = on_bad_box
        self._on_bad_image = on_bad_image
        self._check_images = check_images
        self._drop_images_without_boxes = drop_images_without_boxes
        self._group_by_aspect_ratio = group_by_aspect_ratio
        self._source = source
        self._range_option: Literal["auto"] | ImageRange = image_range
        self._max_image_pixels = max_image_pixels
        self._file_names = file_names
        self._image_range: ImageRange = "full" if image_range == "auto" else image_range
        self.worker_timeout_s = worker_timeout_s
        self._ledgers: list[tuple[CocoDataset, Ledger]] = []
        self._known_classes: tuple[str, ...] = ()
        self._tasks: tuple[TaskName, ...] = ()
        self._boxes_from_masks = boxes_from_masks
        self._keypoint_options = (keypoint_flip_pairs, keypoint_sigmas)
        self._keypoint_schemas: tuple[KeypointSchema | None, ...] = ()
        self._train_set: CocoDataset | None = None
        self._val_set: CocoDataset | None = None

    @property
    def is_generated(self) -> bool:
        """Whether a source draws the images."""
        return self._source is not None

    # --- Lightning's hooks

    def prepare_data(self) -> None:
        """Generate the data if there is a source. Lightning calls this once per machine, before `setup`."""
        self._find_root()

    def setup(self, stage: str | None = None) -> None:
        """Read and check the annotations of both splits for "fit", otherwise of val alone. Idempotent."""
        if stage in (None, "fit") and self._train_set is None:
            if self._boxes_from_masks or any(self._keypoint_options):
                from detector.data.shape_checks import require_used_options  # late: most set none of them

                require_used_options(self._tasks, self._boxes_from_masks, *self._keypoint_options)
            train, val = drop_root_category(for_both_splits(self._read))
            require_same_categories(train, val)
            require_unique_names(train)
            splits: dict[SplitName, CocoAnnotations] = {"train": train, "val": val}
            for_both_splits(lambda name: require_objects(splits[name], split=name, size=self.image_size))
            note_classes_without_objects(train, val)
            from detector.coco.shared_images import note_shared_images

            note_shared_images(train, val)
            self._settle_range(train, val)
            self._settle_shapes(train, val)
            self._train_set = self._make_train_set(train)
            self._val_set = self._make_val_set(val)
        elif self._val_set is None:
            (val,) = drop_root_category([self._read("val")], known=self._known_classes)
            require_unique_names(val)
            self._settle_range(val)
            self._settle_shapes(val)
            self._val_set = self._make_val_set(val)

    def train_dataloader(self) -> DataLoader[Batch]:
        sampler = self.train_sampler()
        # Lightning fills the workers' queues before it announces the epoch of a resumed run.
        sampler.set_epoch(self.trainer.current_epoch if self.trainer is not None else 0)
        return self._loader(self.train_set, sampler, batch_size=self.batch_size)

    def val_dataloader(self) -> DataLoader[Batch]:
        rank, world_size = self._rank_and_world_size()
        sampler = EvaluationBatchSampler(
            len(self.val_set), batch_size=self.val_batch_size, rank=rank, world_size=world_size
        )
        return self._loader(self.val_set, sampler, batch_size=self.val_batch_size)

    # --- the interface to the rest of a run

    def know_classes(self, names: tuple[str, ...]) -> None:
        """Set the model's classes, which have no dummy root category. Call before `setup("validate")`."""
        self._known_classes = names

    def use_image_range(self, image_range: ImageRange) -> None:
        """Read images of more than 8 bits by this range, whatever is configured. Call before `setup`."""
        require_ascending(image_range)
        self._range_option = self._image_range = image_range

    def use_tasks(self, tasks: Sequence[TaskName]) -> None:
        """Read the masks ("segm") and keypoints that a model learns, too. Call before `setup`."""
        self._tasks = (*tasks,)

    @property
    def keypoint_schemas(self) -> tuple[KeypointSchema | None, ...]:
        """The keypoints of each class, None for a class without; empty if keypoints are no task."""
        return self._keypoint_schemas

    def train_sampler(self) -> TrainBatchSampler:
        """Return the sampler of this process's training batches, at the first epoch."""
        rank, world_size = self._rank_and_world_size()
        sizes = self.train_set.annotations.sizes
        return TrainBatchSampler(
            len(self.train_set),
            batch_size=self.batch_size,
            seed=self.seed,
            groups=(sizes[:, 0] > sizes[:, 1]) if self._group_by_aspect_ratio else None,
            rank=rank,
            world_size=world_size,
        )

    @property
    def train_set(self) -> CocoDataset:
        assert self._train_set is not None, 'call setup("fit") first'
        return self._train_set

    @property
    def val_set(self) -> CocoDataset:
        assert self._val_set is not None, "call setup() first"
        return self._val_set

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.val_set.annotations.class_names

    @property
    def category_ids(self) -> tuple[int, ...]:
        return self.val_set.annotations.category_ids

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_range(self) -> ImageRange:
        """The values of black and white in images of more than 8 bits; `setup` resolves "auto"."""
        return self._image_range

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the annotation files in use. Equal fingerprints mean equal images, boxes and classes."""
        digest = hashlib.sha256()
        for dataset in (self._train_set, self._val_set):
            if dataset is not None:
                with dataset.annotations.path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def images_of_worker(self, process_id: int) -> list[str]:
        """Return the images that a loader process read last, by id and file; empty if it is unknown."""
        return [
            f"{dataset.image_id(index)} ({dataset.annotations.image_path(index)})"
            for dataset, ledger in self._ledgers
            for index in ledger.images_of(process_id)
        ]

    # --- parts

    def _find_root(self) -> str | None:
        """Return the dataset's folder; a source generates it if it is missing."""
        if self._source is None:
            return self.root
        if self.root is None:
            raise ValueError("data.root is not set. Pass data.root=FOLDER to generate the data into.")
        return str(self._source.generate(Path(self.root)))

    def _read(self, split: SplitName) -> CocoAnnotations:
        from detector.coco.reader import read_coco  # late: it imports all the checks

        files: SplitFiles = find_split(split, root=self._find_root(), paths=self._paths[split])
        return read_coco(
            files.annotations,
            images_dir=files.images,
            on_bad_box=self._on_bad_box,
            on_bad_image=self._on_bad_image,
            check=self._check_images,
            reading=ReadOptions(
                None if self._range_option == "auto" else self._image_range, self._max_image_pixels
            ),
            file_names=self._file_names,
            folder_option=f"data.{split}.images",
            tasks=self._tasks,
        )

    def _settle_shapes(self, *splits: CocoAnnotations) -> None:
        """Check the masks and keypoints of the splits, and tell how keypoints are understood."""
        if {*self._tasks} <= {"bbox"}:
            return
        from detector.data.shape_checks import require_shapes, settle_keypoints  # late: boxes need no shapes

        require_shapes(splits, tasks=self._tasks)
        if "keypoints" in self._tasks:
            self._keypoint_schemas = settle_keypoints(splits[0], *self._keypoint_options)

    def _settle_range(self, *splits: CocoAnnotations) -> None:
        """Resolve "auto" on the first split, and warn of the range or of how little of it is used."""
        if self._range_option == "auto":
            self._image_range = find_range(splits[0].deep_values)
        for split in splits:
            is_auto = self._range_option == "auto" and split is splits[0]
            if note := range_note(
                split.deep_values,
                image_range=self._image_range,
                option="data.image_range",
                is_auto=is_auto,
            ):
                _log.warning("%s: %s", split.path, note)

    def _reading(self) -> ReadOptions:
        return ReadOptions(self._image_range, self._max_image_pixels)

    def _make_train_set(self, annotations: CocoAnnotations) -> CocoDataset:
        if self._drop_images_without_boxes:
            annotations = with_objects(annotations)
        return CocoDataset(
            annotations,
            image_size=self.image_size,
            augmentation=self._augmentation,
            training=True,
            seed=self.seed,
            reading=self._reading(),
            keypoint_schemas=self._keypoint_schemas,
            boxes_from_masks=self._boxes_from_masks,
        )

    def _make_val_set(self, annotations: CocoAnnotations) -> CocoDataset:
        return CocoDataset(
            annotations,
            image_size=self.image_size,
            reading=self._reading(),
            keypoint_schemas=self._keypoint_schemas,
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _loader(
        self, dataset: CocoDataset, sampler: TrainBatchSampler | EvaluationBatchSampler, *, batch_size: int
    ) -> DataLoader[Batch]:
        loading = self._loading
        if loading.num_workers == 0:
            return DataLoader[Any](
                dataset, batch_sampler=sampler, collate_fn=collate, pin_memory=torch.cuda.is_available()
            )
        cv2.setNumThreads(0)  # before the fork: a child cannot stop the threads of its parent
        ledger = Ledger(num_workers=loading.num_workers, batch_size=batch_size)
        self._ledgers.append((dataset, ledger))
        return DataLoader[Any](
            WatchedDataset(dataset, ledger),
            batch_sampler=sampler,
            collate_fn=collate_to_memory if loading.travel == "memory" else collate_to_pipe,
            num_workers=loading.num_workers,
            persistent_workers=True,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_quiet_worker,
            multiprocessing_context=_start_method(),
            timeout=self.worker_timeout_s,
        )

    @cached_property
    def _loading(self) -> Loading:
        """The way batches are loaded on this machine. A warning tells if it is not as configured."""
        rank, world_size = self._rank_and_world_size()
        largest = max(
            largest_batch_bytes(dataset.annotations, self.image_size, batch_size=batch_size)
            for dataset, batch_size in (
                (self._train_set, self.batch_size),
                (self._val_set, self.val_batch_size),
            )
            if dataset is not None
        )
        limits = Limits.of_this_machine()
        loading = plan_loading(self.num_workers, batch_bytes=largest, ranks=world_size, limits=limits)
        if loading.note and rank == 0:
            _log.warning("%s", loading.note)
        return loading


def _start_method() -> Literal["fork"] | None:
    """Return "fork" where it is safe: the workers then share the annotations instead of copying them."""
    fork = sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods()
    return "fork" if fork else None


def _quiet_worker(worker: int) -> None:
    """Limit a worker to one thread: parallelism comes from the number of workers."""
    leave_signals_to_parent()
    gc.freeze()  # a full collection would write to, and so copy, every inherited page
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
