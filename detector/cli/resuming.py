"""Resuming from the folder of a run: its overrides are taken, and only what is typed may differ."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from detector.config.errors import ConfigError
from detector.processes import is_first_process
from detector.quoting import override
from detector.run_folder import RunFolder
from detector.runs.context import overridden_key

_OF_THIS_RUN = ("output_dir", "training.resume")


def with_resumed(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides with those of the run whose folder is `training.resume`, if it is one.

    Those of the run come first, without options that are typed and without Hydra's own (a file may not say
    what other programs run). The run goes on in its folder unless another output_dir is typed.

    Raises:
        ConfigError: the folder has no run to go on with.
    """
    typed = {overridden_key(word): word for word in overrides}
    folder = _folder(typed.get("training.resume"))
    if folder is None:
        return tuple(overrides)
    files = RunFolder(folder)
    for file in (files.overrides, files.last):
        if not file.is_file():
            raise ConfigError(
                [f"training.resume={folder}: no run to go on with: it has no {file.relative_to(folder)}."]
            )
    stored = [
        word
        for word in files.overrides.read_text(encoding="utf-8").splitlines()
        if overridden_key(word) not in {*typed, *_OF_THIS_RUN} and not word.lstrip("+~").startswith("hydra")
    ]
    own = [word for word in overrides if word != typed["training.resume"]]
    place = [] if "output_dir" in typed else [override("output_dir", folder)]
    if is_first_process():
        print(f"Going on with {folder}: {' '.join(stored) or 'no overrides'}", file=sys.stderr)
    return (*stored, *own, override("training.resume", files.last), *place)


def _folder(word: str | None) -> Path | None:
    """Return the folder that an override names, or None if it is no folder."""
    if word is None:
        return None
    try:
        value = OverridesParser.create().parse_override(word).value()
    except HydraException:  # told when it is composed
        return None
    return Path(value) if isinstance(value, str) and value and Path(value).is_dir() else None
