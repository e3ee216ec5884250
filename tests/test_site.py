"""The site of docs/ builds without a broken link, and its pages ask no other server for anything."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.shown import ROOT

pytest.importorskip("zensical", reason="builds the site: pip install -e '.[docs]'")

pytestmark = pytest.mark.slow


class Loads(HTMLParser):
    """What a page loads when it is opened: sources and linked files, not links to follow."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        loaded = [values.get("src"), values.get("srcset"), values.get("href") if tag == "link" else None]
        self.addresses += [value for value in loaded if value]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site of a copy of the checkout, with one report in its gallery."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("docs", "configs", "detector", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "zensical.toml", folder)
    report = folder / "report.html"
    report.write_text("<title>a report</title>")
    done = subprocess.run(
        [sys.executable, "scripts/build_site.py", "--reports", f"First & only={report}"],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in set(site.rglob("*.html")) - set(site.glob("reports/*")):
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert loads.addresses
        assert [address for address in loads.addresses if re.match(r"(\w+:)?//", address)] == []
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(\w+:)?//|@import", sheet.read_text(encoding="utf-8"))


def test_every_option_has_a_row(site: Path) -> None:
    text = (site / "reference" / "options.html").read_text(encoding="utf-8")
    for option in ("optimizer.lr", "model.head.rpn.nms_iou_threshold", "data.source.strength", "seeds"):
        assert f"<td><code>{option}</code></td>" in text


def test_python_page_has_the_docstrings(site: Path) -> None:
    text = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert "A trained detector that uses the image preparation" in text
    assert "score_threshold" in text


def test_reports_are_copied_and_linked(site: Path) -> None:
    assert (site / "reports" / "1.html").read_text(encoding="utf-8") == "<title>a report</title>"
    assert '<a href="reports/1.html">First &amp; only</a>' in (site / "gallery.html").read_text(
        encoding="utf-8"
    )
