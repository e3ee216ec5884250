"""Lightning's checkpoint IO plugin: written atomically, read without running code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins import TorchCheckpointIO

from detector.checkpoint import read_content, save_atomically


class AtomicCheckpointIO(TorchCheckpointIO):
    """A checkpoint IO plugin that writes atomically and reads plain containers only.

    Lightning's own writer goes through TMPDIR: if that is another filesystem, its last move is a copy, and a
    kill during it destroys the previous good file. It also swallows PermissionError.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        save_atomically(checkpoint, path)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        from detector.training.resumable import require_entries  # needed only to resume

        content = read_content(Path(path))
        require_entries(content, source=f"training.resume={path}")
        return content
