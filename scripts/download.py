"""Downloads that resume where they stopped, and are checked."""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

_CHUNK = 1 << 20


def download(
    url: str, target: Path, *, md5: str, progress: Callable[[int, int | None], object] | None = None
) -> None:
    """Download `url` to `target`, unless it is there already with this checksum.

    A partial download is kept in `target`.part, and a second call resumes it. `progress` gets the number of
    bytes downloaded, and the total if the server reports it. Raises ValueError for a file with another
    checksum (which is then removed), OSError if the connection fails.
    """
    if target.is_file():
        _require_md5(target, md5)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    _fetch(url, part, progress)
    _require_md5(part, md5)
    os.replace(part, target)


def _fetch(url: str, part: Path, progress: Callable[[int, int | None], object] | None) -> None:
    offset = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and offset:  # the partial file is complete
            return
        raise
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        offset = file.tell()
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length else None
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            offset += len(chunk)
            if progress is not None:
                progress(offset, total)
    if total is not None and offset < total:
        raise ConnectionError(f"{url}: broke off after {offset} of {total} bytes. Run it again to go on.")


def _require_md5(file: Path, md5: str) -> None:
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "md5").hexdigest()
    if digest != md5:
        file.unlink()
        raise ValueError(f"{file}: its MD5 is {digest}, expected {md5}. It was removed: download it again.")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file into `folder`. A marker file left there makes a second call return at once."""
    note = folder / f".{archive.name}.unpacked"
    if note.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    shutil.unpack_archive(archive, folder)
    note.touch()
