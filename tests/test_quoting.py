"""What is quoted is read back as it was, by Hydra and by shells."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from detector.quoting import advised, override, quoted, shell_command

NAMES = [
    "/home/jürgen/Daten",
    "it's.ckpt",
    "a;b",
    "my folder",
    " leading",
    "trailing ",
    "a=b",
    "a,b",
    "{a}",
    "[a]",
    "$HOME",
    "${x}",
    "\\${x}",
    "\\\\${x}",
    "#1",
    "C:\\data\\",
    "back\\'quote",
    "\\",
    "'",
    '"',
    "\\'",
    "~/x",
    "(x)",
    "図/画像",
    "a`date`b",
    "!x",
    "2024",
    "1e5",
    "...",
    "null",
    "True",
    "nan",
    "-1",
    "",
    "a\nb",
    "*?|&<>",
    "=x",
]
SHELLS = [shell for shell in ("bash", "zsh", "dash") if shutil.which(shell)]


def read_back(word: str) -> object:
    """What Hydra and OmegaConf make of the value of an override."""
    value = OverridesParser.create().parse_override(word).value()
    return OmegaConf.create({"x": value}).x


@pytest.mark.parametrize("text", NAMES)
def test_quoted_text_is_read_back(text: str) -> None:
    assert read_back(f"x={quoted(text)}") == text
    assert read_back(override("x", text)) == text


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet=st.one_of(st.sampled_from("\\'\"${}a=,[] "), st.characters(codec="utf-8")), max_size=12)
)
def test_any_text_is_read_back(text: str) -> None:
    assume(text != "???")  # OmegaConf's word for a value that is missing, however it is quoted
    assert read_back(f"x={quoted(text)}") == text
    assert read_back(override("x", text)) == text


def test_plain_path_stays_readable() -> None:
    assert override("a.b", "runs/train/fcos-1/last.ckpt") == "a.b=runs/train/fcos-1/last.ckpt"
    assert advised("a", "runs/x.ckpt") == "a=runs/x.ckpt"


@pytest.mark.parametrize("shell", SHELLS)
def test_pasted_command_gives_the_words(shell: str) -> None:
    words = [override(f"k{i}", name) for i, name in enumerate(NAMES)]
    script = f"detector() {{ printf '%s\\0' \"$@\"; }}\n{shell_command('train', words)}"
    done = subprocess.run([shell, "-c", script], capture_output=True, timeout=20, check=True)
    assert done.stdout.decode().split("\0")[:-1] == ["train", *words]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("name", NAMES)
def test_advised_override_is_pasted_as_one_word(shell: str, name: str) -> None:
    script = f"printf '%s\\0' {advised('x', name)}"
    done = subprocess.run([shell, "-c", script], capture_output=True, timeout=20, check=True)
    assert done.stdout.decode().split("\0")[:-1] == [override("x", name)]
