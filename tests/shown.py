"""What README.md and docs/ show, page by page: commands, files and Python."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', flags=re.DOTALL | re.MULTILINE)
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True)
class Block:
    """A fenced block; with a `title`, it is the content of that file."""

    language: str
    title: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command line as shown, and the page that shows it."""

    line: str
    page: Path

    @property
    def words(self) -> list[str]:
        """The words, without assignments of environment variables and `exec` before them."""
        words = shlex.split(self.line)
        while words and (_ASSIGNMENT.match(words[0]) or words[0] == "exec"):
            words = words[1:]
        return words

    @property
    def has_own_files(self) -> bool:
        return "--config-dir" in self.words

    def __str__(self) -> str:
        return self.line


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(*fields) for fields in _BLOCK.findall(text)]


def pages() -> list[Path]:
    """The pages that are committed: not the generated reference of options."""
    docs = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", ROOT / "data" / "README.md", *(p for p in docs if p.name != "options.md")]


def commands(page: Path) -> list[Command]:
    lines = [line for block in blocks(page) if block.language == "bash" for line in block.text.splitlines()]
    return [Command(line, page) for line in lines if line.strip() and not line.startswith("#")]


def all_commands() -> list[Command]:
    """Each command once for the files that it may use."""
    examples = [command for page in pages() for command in commands(page)]
    return [*{(c.line, c.page if c.has_own_files else None): c for c in examples}.values()]


def write_files(page: Path, folder: Path) -> None:
    """Write the files that a page shows into a folder."""
    for block in blocks(page):
        if block.title:
            target = folder / block.title
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
