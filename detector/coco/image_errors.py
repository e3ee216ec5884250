"""Why an image file cannot be used."""

from __future__ import annotations


class ImageError(Exception):
    """A file that cannot be used: why, and what to do, without its name."""


class DamagedImageError(ImageError):
    """The bytes are no image. What to do depends on who names the file."""


class MissingImageError(ImageError):
    """There is no such file."""


class ImageFileError(ValueError):
    """A file that cannot be used: its name, why, and what to do."""

    def __init__(self, message: str) -> None:
        # Of an error in a loader worker torch makes a new one whose message is the whole traceback.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())
