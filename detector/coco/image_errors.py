"""The errors of image files that cannot be used."""

from __future__ import annotations


class ImageError(Exception):
    """An image that cannot be used. The message gives the reason and the fix, but not the file's name."""


class DamagedImageError(ImageError):
    """The bytes are not an image. The fix depends on where the file is named."""


class MissingImageError(ImageError):
    """The file does not exist."""


class ImageFileError(ValueError):
    """A file that cannot be used. The message gives its name, the reason and the fix."""

    def __init__(self, message: str) -> None:
        # torch re-creates the error of a loader worker with the whole traceback as its message.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())
