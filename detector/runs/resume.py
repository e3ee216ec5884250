"""Going on with a run: what has to be as it was, what may change, and what is said about it."""

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
    """Raise ValueError where a run would overwrite another one, unless it goes on with it.

    One that was killed before its first checkpoint leaves nothing to go on with, and may be started anew:
    then this says so, and else nothing.
    """
    if resume is not None and output_dir.resolve() in Path(resume).resolve().parents:
        return ""
    files = RunFolder(output_dir)
    present = _kept_files(files)
    if not present:
        begun = files.overrides.is_file()
        return (
            f"{output_dir} holds a run that ended before its first checkpoint: started anew" if begun else ""
        )
    kept = files.kept_checkpoints()
    go_on = f" To go on with it: {advised('training.resume', kept[0])}" if kept else ""
    raise ValueError(
        f"output_dir={output_dir} already holds a run ({', '.join(present)}). Choose another output_dir "
        f"or remove it.{go_on}"
    )


def remove_curves(output_dir: Path) -> None:
    """Remove those of the run that `require_free` says is started anew: TensorBoard shows all as one."""
    if (folder := RunFolder(output_dir).tensorboard).is_dir():
        shutil.rmtree(folder)


def _kept_files(files: RunFolder) -> list[str]:
    """Names of what a run or an evaluation has kept in the folder. The metrics of a first epoch whose
    checkpoint was not written any more do not count."""
    checkpoints = files.checkpoints.iterdir() if files.checkpoints.is_dir() else ()
    present = [files.checkpoints] if any(file.suffix != ".tmp" for file in checkpoints) else []
    present += [file for file in (files.epochs, files.report) if file.exists()]
    if files.metrics.exists() and (present or not files.overrides.is_file()):
        present.append(files.metrics)
    return [file.name for file in present]


def lacks_report(resumed: Checkpoint, output_dir: Path, *, max_epochs: int) -> bool:
    """Whether the run in `output_dir` was trained to its end, and ended before its report was written."""
    files = RunFolder(output_dir)
    if resumed.path.resolve() != files.last.resolve():
        return False
    is_trained = resumed.epoch == max_epochs or _is_newer(files.stopped, files.last)
    return is_trained and not _is_newer(files.report, files.last)


def _is_newer(file: Path, than: Path) -> bool:
    return file.is_file() and file.stat().st_mtime_ns >= than.stat().st_mtime_ns


def require_same_model(checkpoint: Checkpoint, config: dict[str, Any], *, max_epochs: int) -> list[str]:
    """What else is configured otherwise than in the checkpoint, one `key: before -> now` each.

    Raises:
        ValueError: nothing is left to train; or the model, the kind of optimiser or the use of an average
            differs, so that the saved state has no place.
    """
    from detector.config.defaults import with_defaults  # of configurations, for those who compare two

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
        raise ValueError(
            f"training.resume={checkpoint.path} was trained otherwise: {'; '.join(misfits)}. "
            "Repeat its overrides (overrides.txt beside its checkpoints), or start a new run."
        )
    return list(texts.values())


def keep_image_range(checkpoint: Checkpoint, data: DetectionDataModule, context: Context) -> None:
    """Go on with the image_range of the checkpoint where the configuration says auto."""
    if context.config["data"].get("image_range") == "auto":
        trained = checkpoint.config["data"].get("image_range", "full")
        data.use_image_range("full" if isinstance(trained, str) else (trained[0], trained[1]))
        for config in (context.config, context.recorded):
            config["data"]["image_range"] = trained


def what_is_kept(checkpoints: Checkpoints, context: Context) -> str:
    """What an interrupted run leaves behind, and how to go on from it."""
    if not (present := checkpoints.files.kept_checkpoints()):
        return "No epoch was finished, no checkpoint is kept."
    kept = present[0]
    try:
        after = f", after epoch {load_checkpoint(kept).epoch}"
    except (ValueError, OSError) as error:
        return f"Left: {kept}, which cannot be read: {error}"
    replaced = ("training.resume", "output_dir")
    overrides = [o for o in context.overrides if overridden_key(o) not in replaced]
    here = [override("output_dir", checkpoints.output_dir), override("training.resume", kept)]
    command = shell_command("train", [*context.config_dir_flags, *overrides, *here])
    return f"Kept: {kept}{after}. To go on from it: {command}"


def flattened(config: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; lists as text, to be compared as a whole."""
    if not isinstance(config, dict):
        return {path: str(config) if isinstance(config, list) else config}
    return {
        key: value
        for name, item in config.items()
        for key, value in flattened(item, f"{path}.{name}" if path else str(name)).items()
    }


_FREE_OPTIONS = ("weights", "offset_init", "backend")  # of a model: how it starts, and how it computes


def _state_depends_on(key: str, values: set[Any]) -> bool:
    if key == "training.ema_decay":
        return None in values
    # The optimiser brings its rates and its step count back: other values here would have no effect.
    steps = ("data.batch_size", "training.devices", "training.accumulate_batches")
    return (
        key.startswith("optimizer.")
        or key in steps
        or (key.startswith("model.") and not key.endswith(tuple(f".{name}" for name in _FREE_OPTIONS)))
    )
