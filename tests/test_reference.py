"""The table of options, and the annotations that are read without importing."""

from __future__ import annotations

import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from detector.cli.main import VERBS
from detector.config.annotations import annotations_of, source_of
from detector.config.group_files import ConfigFiles
from detector.config.paths import config_dir
from detector.config.reference import OptionInfo, every_option, options_of
from detector.config.signatures import schema_of
from detector.config.values import bounds, choices, dataclass_in, describe, members
from tests.configurations import leaves, plain

MODULES = {verb.name: verb.module for verb in VERBS.values()}


@cache
def options() -> list[OptionInfo]:
    return every_option(MODULES)


def files_of(verb: str, *words: str, folder: Path | None = None) -> ConfigFiles:
    return ConfigFiles([*([folder] if folder else []), config_dir()], verb, words)


def table(verb: str, *words: str) -> dict[str, OptionInfo]:
    return {option.key: option for option in options_of(files_of(verb, *words), MODULES[verb])}


@pytest.mark.parametrize("verb", VERBS)
def test_table_has_the_options_of_the_configuration(verb: str) -> None:
    composed = {".".join(path) for path in leaves(plain(verb))} - {"data.augmentation"}
    ours = {key for key in composed if not key.startswith(("compare.variants.", "compare.conditions."))}
    assert ours <= {*table(verb)} | {"compare.conditions"}


def targets(values: Any) -> set[str]:
    if not isinstance(values, dict):
        return set()
    own = {values["_target_"]} if "_target_" in values else set()
    return own.union(*(targets(value) for value in values.values()))


def all_targets() -> set[str]:
    choices: tuple[list[str], ...] = ([], ["model=faster_rcnn", "optimizer=sgd", "lr_scheduler=multistep"])
    files = [ConfigFiles([config_dir()], "train", words).options for words in choices]
    ours = {name for options in files for name in targets(options) if name.startswith("detector.")}
    return ours | {f"{module}.Options" for module in MODULES.values()}


@pytest.mark.parametrize("name", sorted(all_targets()))
def test_annotations_read_from_source_say_what_the_imported_ones_say(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    imported = schema_of(getattr(importlib.import_module(module), attribute)).annotations
    for parameter, annotation in annotations_of(name).items():
        if parameter in imported and imported[parameter] is not Any:
            assert bounds(annotation) == bounds(imported[parameter]), parameter
            assert {*choices(annotation)} == {*choices(imported[parameter])}, parameter
            nested = dataclass_in(imported[parameter])
            if nested is not None:
                sources = [source_of(member) for member in members(annotation)]
                assert f"{nested.__module__}.{nested.__qualname__}" in sources
            elif annotation is Any:
                assert "an object" in describe(imported[parameter])
            elif not any(source_of(member) for member in members(annotation)):
                assert describe(annotation).split()[:2] == describe(imported[parameter]).split()[:2]
    assert imported.keys() <= annotations_of(name).keys()


def test_an_option_has_type_range_and_choices() -> None:
    rows = table("train")
    decay, devices = rows["training.ema_decay"], rows["training.devices"]
    assert (decay.type, decay.range, decay.default) == ("a number or null", ">= 0 and <= 1", None)
    assert (devices.type, devices.range, devices.choices) == ("an integer or a string", ">= 1", ("auto",))
    assert devices.group == "training=default"
    assert rows["training.precision"].choices == ("32-true", "bf16-mixed", "16-mixed")


def test_options_of_every_choice_are_there_once() -> None:
    keys = [(option.group, option.key) for option in options()]
    assert len(keys) == len(set(keys))
    assert {
        ("optimizer=sgd", "optimizer.momentum"),
        ("model/head=faster_rcnn", "model.head.rpn.anchor_generator.scales"),
        ("data/augmentation=strong", "data.augmentation.affine.p"),
        ("predict", "score_threshold"),
        ("data=coco", "data.root"),
    } <= set(keys)
    (root,) = [option for option in options() if (option.group, option.key) == ("data=coco", "data.root")]
    assert root.default is None


def test_every_option_has_a_description() -> None:
    assert not [(option.group, option.key) for option in options() if not option.description]


def test_choices_in_a_comment_are_those_of_the_signature() -> None:
    for option in options():
        if " | " in (comment := comment_of(option)):
            listed = comment.partition(": ")[0].split(" | ")
            booleans = {"true", "false"} if option.type.startswith("true or false") else set()
            assert {*listed} == {*option.choices} | booleans, option.key
            assert " | " not in option.description, option.key


def comment_of(option: OptionInfo) -> str:
    words = [option.group] if "=" in option.group else []
    files = ConfigFiles([config_dir()], "train" if words else option.group, words)
    return files.comments.get(option.key, "")


def test_chosen_groups_and_own_folders_are_followed(tmp_path: Path) -> None:
    assert "optimizer.momentum" in table("train", "optimizer=sgd")
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("rate: 3  # per hour\n")
    rows = options_of(files_of("train", "optimizer=mine", folder=tmp_path), MODULES["train"])
    (rate,) = [option for option in rows if option.key == "optimizer.rate"]
    assert (rate.type, rate.default, rate.description) == ("an integer", 3, "per hour")


@pytest.mark.parametrize("name", ["detector.wrong.deeper.Part", "detector.wrong.Part", "detector.heads.Part"])
def test_a_target_that_does_not_exist_has_no_annotations(name: str) -> None:
    """The check of the configuration says so."""
    assert annotations_of(name) == {}


def test_table_imports_nothing_heavy() -> None:
    code = f"""
import sys
from detector.config.reference import every_option
every_option({MODULES})
print([m for m in ("torch", "hydra", "numpy", "pydantic", "omegaconf") if m in sys.modules])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
