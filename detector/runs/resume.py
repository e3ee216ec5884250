"""Resuming a run: what must stay the same, what may change, and what is reported about it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from detector.checkpoint import Checkpoint, load_checkpoint
from detector.data.datamodule import DetectionDataModule
from detector.quoting import advised, override, shell_command
from detector.run_folder import RunFolder
from detector.runs.context import Context, overridden_key
from detector.training.callbacks import Checkpoints


def require_free(output_dir: Path, *, resume: str | None) -> str:
    """Raise ValueError if a run would overwrite another one, unless it resumes it.

    A run that was killed before its first checkpoint cannot be resumed and may be started again: then the
    returned text says so. Otherwise it is empty.
    """
    if resume is not None and output_dir.resolve() in Path(resume).resolve().parents:
        return ""
    files = RunFolder(output_dir)
    present = _existing_files(files)
    if not present:
        begun = files.overrides.is_file()
        return (
            f"{output_dir} holds a run that ended before its first checkpoint: started anew" if begun else ""
        )
    hint = f" To go on with it: {advised('training.resume', output_dir)}" if files.last.is_file() else ""
    raise ValueError(
        f"output_dir={output_dir} already holds a run ({', '.join(present)}). Choose another output_dir "
        f"or remove it.{hint}"
    )


def remove_curves(output_dir: Path) -> None:
    """Remove the TensorBoard curves of a run that is started again, as TensorBoard would merge both runs."""
    if (folder := RunFolder(output_dir).tensorboard).is_dir():
        shutil.rmtree(folder)


def _existing_files(files: RunFolder) -> list[str]:
    """Return the names of the files that a run or an evaluation left in the folder.

    The metrics and weights of a first epoch whose last.ckpt was never written do not count.
    """
    checkpoints = files.checkpoints.iterdir() if files.checkpoints.is_dir() else ()
    whole = [file for file in checkpoints if file.suffix != ".tmp"]
    # Killed between its first two: the weights of an epoch whose last.ckpt was never written.
    is_begun = whole == [files.best] and files.overrides.is_file() and not files.epochs.exists()
    present = [files.checkpoints] if whole and not is_begun else []
    present += [file for file in (files.epochs, files.report) if file.exists()]
    if files.metrics.exists() and (present or not files.overrides.is_file()):
        present.append(files.metrics)
    return [file.name for file in present]


def lacks_report(resumed: Checkpoint, output_dir: Path, *, max_epochs: int) -> bool:
    """Return whether the run in `output_dir` finished training but ended before its report was written."""
    files = RunFolder(output_dir)
    if resumed.path.resolve() != files.last.resolve():
        return False
    is_trained = resumed.epoch == max_epochs or _is_newer(files.stopped, files.last)
    return is_trained and not _is_newer(files.report, files.last)


def _is_newer(file: Path, than: Path) -> bool:
    return file.is_file() and file.stat().st_mtime_ns >= than.stat().st_mtime_ns


def require_same_model(checkpoint: Checkpoint, config: dict[str, Any], *, max_epochs: int) -> list[str]:
    """Return the other options that differ from the checkpoint, as `key: before -> now`.

    Raises:
        ValueError: nothing is left to train; or options differ on which the saved state depends, such as
            those of the model, the optimizer or the use of an average.
    """
    from detector.config.defaults import with_defaults  # needed only to compare configurations

    if checkpoint.epoch >= max_epochs:
        raise ValueError(
            f"training.resume={checkpoint.path} has finished {checkpoint.epoch} epochs, "
            f"training.max_epochs={max_epochs} leaves nothing to do. Raise training.max_epochs."
        )
    before, now = (flattened(with_defaults(x)) for x in (checkpoint.config, config))
    changed = [
        key
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key not in ("output_dir", "name", "training.resume")
    ]
    texts = {key: f"{key}: {before.get(key)} -> {now.get(key)}" for key in changed}
    misfits = [texts[key] for key in changed if _state_depends_on(key, {before.get(key), now.get(key)})]
    if misfits:
        heads = [
            str(x.get("model.head._target_")).rpartition(".")[2].removesuffix("Head") for x in (before, now)
        ]
        if heads[0] != heads[1]:
            raise ValueError(
                f"training.resume={checkpoint.path} is a {heads[0]}, this is a {heads[1]}. Repeat its "
                "overrides (overrides.txt beside its checkpoints), or start a new run."
            )
        more = f"; and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
        raise ValueError(
            f"training.resume={checkpoint.path} was trained with other options: "
            f"{'; '.join(misfits[:_SHOWN])}{more}. "
            "Repeat its overrides (overrides.txt beside its checkpoints), or start a new run."
        )
    return list(texts.values())


def keep_image_range(checkpoint: Checkpoint, data: DetectionDataModule, context: Context) -> None:
    """Keep the image_range of the checkpoint if the configuration says auto."""
    if context.config["data"].get("image_range") == "auto":
        trained = checkpoint.config["data"].get("image_range", "full")
        data.use_image_range("full" if isinstance(trained, str) else (trained[0], trained[1]))
        for config in (context.config, context.recorded):
            config["data"]["image_range"] = trained


def resume_hint(checkpoints: Checkpoints, context: Context) -> str:
    """Return a text on what an interrupted run leaves behind and how to resume it."""
    if not (checkpoint := checkpoints.files.last).is_file():
        return "No epoch was finished, no checkpoint is kept."
    try:
        after = f", after epoch {load_checkpoint(checkpoint).epoch}"
    except (ValueError, OSError) as error:
        return f"Kept: {checkpoint}, which cannot be read: {error}"
    replaced = ("training.resume", "output_dir")
    overrides = [o for o in context.overrides if overridden_key(o) not in replaced]
    here = [override("output_dir", checkpoints.output_dir), override("training.resume", checkpoint)]
    command = shell_command("train", [*context.config_dir_flags, *overrides, *here])
    return f"Kept: {checkpoint}{after}. To go on from it: {command}"


def flattened(config: Any, path: str = "") -> dict[str, Any]:
    """Flatten nested mappings to dotted keys, with lists as text, so that they compare as a whole."""
    if not isinstance(config, dict):
        return {path: str(config) if isinstance(config, list) else config}
    return {
        key: value
        for name, item in config.items()
        for key, value in flattened(item, f"{path}.{name}" if path else str(name)).items()
    }


_SHOWN = 5  # differences in a message
_FREE_OPTIONS = ("weights", "offset_init", "backend")  # model options for its start and its computation


def _state_depends_on(key: str, values: set[Any]) -> bool:
    if key == "training.ema_decay":
        return None in values
    # The optimizer state restores its rates and step count: other values here would have no effect.
    steps = ("data.batch_size", "training.devices", "training.accumulate_grad_batches")
    return (
        key.startswith("optimizer.")
        or key in steps
        or (key.startswith("model.") and not key.endswith(tuple(f".{name}" for name in _FREE_OPTIONS)))
    )
