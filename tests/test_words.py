"""Values are quoted for the user where Hydra would not read what was meant."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.config.words import repaired

PATHS = [
    "/home/jürgen/Daten",
    "it's.ckpt",
    "a;b",
    "a=b",
    "x/a,b",
    "{a}",
    "[a]",
    "a#b",
    "(x)",
    "x(1)",
    "a~b",
    "a&b!c",
    "a`b",
    '"x',
    "2024",
    "1e5",
    "true",
    "my folder/x",
    "a$b",
    "C:\\data",
    "図/画像",
]


def value(word: str) -> Any:
    return OverridesParser.create().parse_override(word).value()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_path_is_taken_as_it_is(path: str, sign: str) -> None:
    assert value(repaired(f"{sign}data.root={path}", verb="train", multirun=False)) == path


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=12))
def test_any_text_becomes_a_text_or_what_hydra_reads(text: str) -> None:
    word = repaired(f"checkpoint=./{text}", verb="predict", multirun=False)
    assert isinstance(value(word), str)


@pytest.mark.parametrize(
    "word",
    [
        "data.root=null",
        "data.root='x y'",
        "data.root=${oc.env:HOME}/x",
        "data.root=~/x",
        "data.root=x,y",
        "data.root=",
        "seed=3",
        "seed=0,1",
        "model.backbone.deform.stages=[3,4]",
        "+x={a: b}",
        "~data",
    ],
)
def test_what_hydra_reads_as_meant_stays(word: str) -> None:
    assert repaired(word, verb="train", multirun=False) == word


def test_existing_path_with_a_comma_is_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x,y").mkdir()
    assert value(repaired("data.root=x,y", verb="train", multirun=False)) == "x,y"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("runs=[runs/it's,runs/b=1]", ["runs/it's", "runs/b=1"]),
        ("runs=[[a,ü],[b,c;d]]", [["a", "ü"], ["b", "c;d"]]),
        ("+x={a:ü,b:[it's]}", {"a": "ü", "b": ["it's"]}),
    ],
)
def test_elements_are_quoted_by_themselves(word: str, meant: object) -> None:
    assert value(repaired(word, verb="compare", multirun=False)) == meant


def test_values_of_a_sweep_are_quoted_by_themselves() -> None:
    word = repaired("data.root=/ü/a,it's,c", verb="train", multirun=True)
    assert list(OverridesParser.create().parse_override(word).sweep_string_iterator()) == [
        "'/ü/a'",
        "'it\\'s'",
        "c",
    ]


def test_results_of_a_comparison_are_a_list() -> None:
    assert (
        repaired("predictions=[a.json,b.json]", verb="compare", multirun=False)
        == "predictions=[a.json,b.json]"
    )
    assert value(repaired("predictions=[a].json", verb="evaluate", multirun=False)) == "[a].json"


def test_keys_of_texts_are_those_of_the_signatures() -> None:
    """Each option of the verbs' own that is one text, or a union with null, and no choice of a few."""
    from detector.commands import compare, evaluate, export, predict, train
    from detector.config.words import TEXT_KEYS

    words = set()
    for command in (train, compare, evaluate, predict, export):
        hints = get_type_hints(command.Options)
        words |= {
            n for n in inspect.signature(command.Options).parameters if str in (hints[n], *get_args(hints[n]))
        }
    words -= {"accelerator"}
    assert words <= TEXT_KEYS
    assert {key for key in TEXT_KEYS if "." not in key} <= words
