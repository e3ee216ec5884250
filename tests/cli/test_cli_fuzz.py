"""Whatever is typed or written into a file: a message or a result, never a traceback, never above 10 s."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from detector.cli import main as cli

pytestmark = pytest.mark.slow

KEYS = st.sampled_from(
    [
        "name",
        "source",
        "checkpoint",
        "draw",
        "batch_size",
        "hydra",
        "hydra.job",
        "hydra/launcher",
        "experiment",
    ]
)
TEXTS = st.text(max_size=10) | st.sampled_from(
    ["null", "[]", "{}", "[1,", "${x}", "${a:b}", "9" * 400, "[" * 50]
)
WORDS = st.builds(
    "{}{}{}{}".format, st.sampled_from(["", "+", "++", "~"]), KEYS | TEXTS, st.sampled_from(["=", ""]), TEXTS
)
FLAGS = st.sampled_from(
    ["-m", "--cfg", "job", "--info", "--run", "--config-name", "--resolve", "--package", "-i", "--hydra-help"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | KEYS, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(cli.VERBS, "predict", replace(cli.VERBS["predict"], module="tests.light_command"))
    argv = sys.argv
    answer([])  # what is loaded and read once
    yield
    sys.argv = argv


def answer(words: list[str]) -> tuple[int, str]:
    sys.argv = ["detector", "predict", *words]
    output = StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        try:
            return cli.main(), output.getvalue()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0, output.getvalue()


def require_answer(words: list[str]) -> None:
    start = time.process_time()
    code, output = answer(words)
    assert time.process_time() - start < 10, "of a processor, however busy it is"
    assert code in (0, 1, 2)
    assert "Traceback" not in output, output


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS | FLAGS, max_size=3))
@example(["name=${0}"])
def test_any_words_get_an_answer(words: list[str]) -> None:
    require_answer([word.replace("\0", "") for word in words])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS | TEXTS, VALUES, max_size=3))
@example({"hydra": None})
@example({"hydra": {"job": None}})
def test_any_file_gets_an_answer(body: dict[str, object]) -> None:
    path = Path("foreign/experiment/mine.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(body, allow_unicode=True)
    path.write_text(f"# @package _global_\n{text}", encoding="utf-8")
    require_answer(["--config-dir", "foreign", "experiment=mine"])
