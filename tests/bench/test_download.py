"""Downloads from a server in this process."""

from __future__ import annotations

import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from download import download, unpack

CONTENT = bytes(range(256)) * 5000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Knows one file, gives the rest of it on request, and may hang up early."""

    ranges: ClassVar[list[str | None]] = []
    breaks_off_after = len(CONTENT)

    def do_GET(self) -> None:
        byte_range = self.headers.get("Range")
        self.ranges.append(byte_range)
        start = int(byte_range.removeprefix("bytes=").removesuffix("-")) if byte_range else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if byte_range else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + self.breaks_off_after])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Server, "ranges", [])
    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/file.zip"
    server.shutdown()
    server.server_close()


def test_whole_file_with_progress(url: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    download(url, tmp_path / "a" / "file.zip", md5=MD5, progress=lambda *arguments: seen.append(arguments))
    assert (tmp_path / "a" / "file.zip").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file.zip"]


def test_broken_off_download_goes_on(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file.zip"
    with monkeypatch.context() as context:
        context.setattr(Server, "breaks_off_after", 1000)
        with pytest.raises(OSError, match=r"broke off after 1000|IncompleteRead"):
            download(url, target, md5=MD5)
    assert not target.exists()
    download(url, target, md5=MD5)
    assert target.read_bytes() == CONTENT
    assert Server.ranges == [None, "bytes=1000-"]


def test_complete_part_needs_nothing_more(url: str, tmp_path: Path) -> None:
    (tmp_path / "file.zip.part").write_bytes(CONTENT)
    download(url, tmp_path / "file.zip", md5=MD5)
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_present_file_is_not_fetched_again(url: str, tmp_path: Path) -> None:
    (tmp_path / "file.zip").write_bytes(CONTENT)
    download(url, tmp_path / "file.zip", md5=MD5)
    assert Server.ranges == []


def test_wrong_checksum_removes_the_file_and_says_so(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"its MD5 is .*, expected 0+\. It was removed"):
        download(url, tmp_path / "file.zip", md5="0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_unpacked_once(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("images/1.txt", "one")
    unpack(archive, tmp_path / "out")
    (tmp_path / "out/images/1.txt").write_text("changed")
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/images/1.txt").read_text() == "changed"
