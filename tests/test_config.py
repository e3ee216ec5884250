"""Configurations are checked against signatures, and only allowed targets are ever called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from detector.config.build import build
from detector.config.check import check
from detector.config.defaults import with_defaults
from detector.config.errors import ConfigError
from detector.config.plain import resolved
from detector.config.targets import allowing, locate
from tests import parts


@pytest.fixture(autouse=True)
def _allowed() -> Iterator[None]:
    parts.calls.clear()
    with allowing(["tests.parts."]):
        yield


def part(**options: object) -> dict[str, Any]:
    return {"_target_": "tests.parts.Part", "depth": 18, **options}


def problems(cfg: dict[str, Any], options: Any = None) -> list[str]:
    try:
        check(OmegaConf.create(cfg), options)
    except ConfigError as error:
        return list(error.problems)
    return []


# --- values


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 50},
        {"norm": "group"},
        {"stages": []},
        {"stages": [3, 4, 5]},
        {"blocks": "last"},
        {"blocks": [0, -1]},
        {"rate": 1},
        {"share": 1.0},
        {"limit": None},
        {"limit": 0.5},
        {"limit": 3},
        {"betas": [0.9, 1]},
        {"name": "a b"},
        {"flag": True},
        {"size": {"_target_": "tests.parts.Size", "height": 2, "width": 3}},
        {"inner": part()},
        {"parts": [part(), part(depth=50)]},
        {"table": {"a": 1, "b": part()}},
        {"factory": {**part(), "_partial_": True}},
        {"anything": {"goes": [1, "two"]}},
    ],
)
def test_value_that_fits_passes(options: dict[str, Any]) -> None:
    assert problems({"x": part(**options)}) == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("depth", 34, "expected one of 18, 50"),
        ("norm", "bacth", "expected one of batch, group. Did you mean batch?"),
        ("norm", None, "expected one of batch, group"),
        ("stages", [3, 6], "expected a list, each one of 2, 3, 4, 5"),
        ("stages", 3, "expected a list"),
        ("blocks", "lsat", "or a list, each an integer. Did you mean last?"),
        ("epochs", 0, "expected an integer >= 1"),
        ("epochs", 2.5, "expected an integer >= 1"),
        ("epochs", "3", "expected an integer >= 1"),
        ("epochs", True, "expected an integer >= 1"),
        ("epochs", None, "expected an integer >= 1"),
        ("rate", -0.1, "expected a number >= 0"),
        ("rate", "fast", "expected a number >= 0"),
        ("share", 1.5, "expected a number >= 0 and <= 1"),
        ("limit", 0, None),
        ("limit", -1, "expected an integer >= 1 or a number >= 0 and <= 1 or null"),
        ("betas", [0.9], "expected a list of 2, each a number"),
        ("name", 7, "expected a string or null. To mean a string, quote it twice: '\"7\"'"),
        ("flag", "yes", "expected true or false"),
        ("size", 3, "expected an object (Size) with its _target_ or null"),
        ("size", {"height": 2, "width": 2}, "lacks its _target_: tests.parts.Size"),
        ("inner", "large", "write x/inner=large"),
        ("parts", [1], "expected a list, each an object (Part)"),
        ("table", [1], "expected a mapping or null"),
        ("name", "~/data", "~ is not expanded here"),
        ("epochs", {"a": {"_target_": "tests.parts.Size"}}, "expected an integer >= 1"),
        ("epochs", [{"_target_": "tests.parts.Size"}], "expected an integer >= 1"),
        ("rate", float("nan"), "expected a number >= 0"),
        ("rate", float("inf"), "expected a number >= 0"),
        ("epochs", "???", "has no value yet. Give it one: x.epochs=..."),
    ],
)
def test_value_that_does_not_fit_is_told(option: str, value: object, message: str | None) -> None:
    actual = problems({"x": part(**{option: value})})
    if message is None:
        assert actual == []
    else:
        assert len(actual) == 1
        assert actual[0].startswith(f"x.{option}")
        assert message in actual[0]


def test_word_for_a_number_is_not_taken_for_a_file_of_a_group() -> None:
    assert problems({"x": part(epochs="ten")}) == ["x.epochs = ten: expected an integer >= 1"]


def test_problems_of_nodes_inside_a_list_are_told() -> None:
    node = {"_target_": "tests.parts.Part", "depth": 18, "parts": [part(epochs=0), part(norm="x")]}
    assert [p.split(" = ")[0] for p in problems({"x": node})] == ["x.parts[0].epochs", "x.parts[1].norm"]


def test_object_of_another_class_is_told() -> None:
    node = part(inner={"_target_": "tests.parts.Size", "height": 1, "width": 1})
    assert problems({"x": node}) == ["x.inner: expected a Part, got tests.parts.Size"]


# --- keys


def test_unknown_key_gets_its_neighbor() -> None:
    (problem,) = problems({"x": part(epoch=3)})
    assert problem == "x.epoch: tests.parts.Part has no option epoch. Did you mean x.epochs?"


def test_unknown_key_unlike_any_lists_what_there_is() -> None:
    node = {"_target_": "tests.parts.make", "depth": 1, "qqq": 1}
    assert problems({"x": node}) == ["x.qqq: tests.parts.make has no option qqq. There are: scale."]


def test_missing_argument_is_told_unless_partial() -> None:
    node = {"_target_": "tests.parts.Part"}
    assert problems({"x": node}) == [
        "x.depth: tests.parts.Part needs it and it is not given. Add +x.depth=..."
    ]
    assert problems({"x": {**node, "_partial_": True}}) == []


def test_misspelled_argument_is_not_also_told_missing() -> None:
    (problem,) = problems({"x": {"_target_": "tests.parts.Part", "dept": 18}})
    assert "Did you mean x.depth?" in problem


def test_target_with_open_keywords_takes_any_key() -> None:
    assert problems({"x": {"_target_": "tests.parts.Loose", "known": 1, "other": 2}}) == []


def test_options_are_the_schema_of_plain_keys() -> None:
    right = {"seed": 1, "data": {"root": None}, "part": part()}
    assert problems(right, parts.Options) == []
    wrong = {"seeds": 1, "data": {"root": 3}, "part": part(epochs=0)}
    assert [p.split(" ")[0] for p in problems(wrong, parts.Options)] == ["seeds:", "data.root", "part.epochs"]


def test_every_problem_is_in_one_message() -> None:
    with pytest.raises(ConfigError) as raised:
        check(OmegaConf.create({"a": part(epochs=0), "b": {"c": part(nrom="x")}, "d": "???"}))
    text = str(raised.value)
    assert text.startswith("3 problems")
    for place in ("1. a.epochs = 0:", "2. b.c.nrom:", "3. d:"):
        assert place in text


def test_failing_interpolation_is_told_with_its_key() -> None:
    assert problems({"a": {"b": "${nowhere}"}})[0].startswith("a.b: its interpolation fails")


def test_option_whose_interpolation_fails_is_not_also_without_a_value() -> None:
    (problem,) = problems({"seed": 1, "data": {"root": "${nowhere}"}, "part": part()}, parts.Options)
    assert problem.startswith("data.root: its interpolation fails")


def test_file_whose_name_starts_with_a_tilde_is_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems({"x": part(name="~t.json")}) != []
    (tmp_path / "~t.json").touch()
    assert problems({"x": part(name="~t.json")}) == []


def test_interpolated_value_is_checked() -> None:
    assert problems({"n": 0, "x": part(epochs="${n}")}) == ["x.epochs = 0: expected an integer >= 1"]


# --- targets


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.load",
        "torch.hub.load",
        "torch.utils.collect_env.run",
        "torch.nn.functional.relu",
        "torch.nn.modules.module.torch.load",
        "lightning.pytorch.cli.LightningCLI",
        "hydra.utils.instantiate",
        "detector.cli.main",
        "detector.config.build.instantiate",
        "detector.commands.train.run",
        "detector.training.module.torch.load",
        "detector.environment.subprocess.run",
        "detector.files.write_text_atomically",
        "detector.cli.jobs.run_verb",
        "download.download",
        "bench.timing.replace_section",
        "detector.training.trainer.build_trainer",
        "detector.predictor.Predictor",
        "detector",
        "",
        3,
    ],
)
def test_target_off_the_list_is_refused_by_check_and_build(target: object) -> None:
    node = {"inner": {"_target_": target}}
    assert len(problems(node)) == 1
    with pytest.raises(ConfigError):
        build(node)


@pytest.mark.parametrize("target", ["torch.nn.Conv2d", "torch.optim.SGD", "detector.structures.FeatureSpec"])
def test_target_on_the_list_is_found(target: str) -> None:
    actual, problem = locate({"_target_": target})
    assert problem is None
    assert actual.__name__ == target.rpartition(".")[2]


def test_albumentations_is_imported_without_its_network_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE", raising=False)
    assert problems({"x": {"_target_": "albumentations.HorizontalFlip", "p": 0.5}}) == []
    assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


def test_misspelled_class_gets_its_neighbor() -> None:
    _, problem = locate({"_target_": "detector.structures.FeatureSpek"})
    assert problem is not None
    assert "Did you mean detector.structures.FeatureSpec?" in problem


def test_misspelled_module_is_told() -> None:
    _, problem = locate({"_target_": "detector.heads.fcoss.FCOSHead"})
    assert problem == "_target_ = detector.heads.fcoss.FCOSHead: there is no module detector.heads.fcoss"


def test_added_targets_count_only_inside() -> None:
    with allowing(["os.path.join"]):
        assert locate({"_target_": "os.path.join"})[1] is None
        assert locate({"_target_": "os.path.exists"})[1] is not None
    assert locate({"_target_": "os.path.join"})[1] is not None


def test_added_targets_of_a_configuration_must_be_a_list() -> None:
    assert problems({"allow_targets": ["a.b"]}) == []
    assert problems({"allow_targets": "a.b"}) == ["allow_targets: expected a list, each a string or null"]


def test_check_calls_nothing() -> None:
    assert problems({"x": part(inner=part()), "y": {"_target_": "tests.parts.make", "depth": 1}}) == []
    assert parts.calls == []


# --- build


def test_build_makes_the_objects_inside() -> None:
    built = build(OmegaConf.create(part(inner=part(depth=50), stages=[3, 4])))
    assert built.arguments["inner"].arguments["depth"] == 50


def test_build_gives_plain_containers() -> None:
    built = build(OmegaConf.create(part(anything=[3, 4], table={"a": [1]})))
    assert type(built.arguments["anything"]) is list
    assert type(built.arguments["table"]) is dict


def test_build_makes_of_a_list_and_a_number_what_the_annotation_says() -> None:
    built = build(OmegaConf.create(part(stages=[3, 4], rate=1)))
    assert built.arguments["stages"] == (3, 4)
    assert type(built.arguments["rate"]) is float


def test_what_a_constructor_raises_is_not_wrapped() -> None:
    with pytest.raises(ValueError, match="higher than 1000") as caught:
        build({"_target_": "tests.parts.Size", "height": 2000, "width": 1})
    assert type(caught.value) is ValueError


def test_build_adds_what_the_run_knows() -> None:
    assert build(part(), epochs=7).arguments["epochs"] == 7


def test_partial_is_called_later() -> None:
    factory = build({**part(), "_partial_": True})
    assert parts.calls == []
    assert factory(epochs=2).arguments["epochs"] == 2


def test_build_calls_nothing_when_a_target_inside_is_refused() -> None:
    with pytest.raises(ConfigError):
        build(part(parts=[part(), {"_target_": "os.system", "command": "true"}]))
    assert parts.calls == []


@pytest.mark.parametrize("key", ["_args_", "_recursive_", "_convert_"])
def test_other_special_keys_of_hydra_are_unknown(key: str) -> None:
    assert len(problems({"x": part(**{key: []})})) == 1


# --- resolved


def test_resolved_is_plain_and_without_interpolations() -> None:
    plain = resolved(OmegaConf.create({"a": 1, "b": {"c": "${a}", "d": [1, {"e": None}]}}))
    assert plain == {"a": 1, "b": {"c": 1, "d": [1, {"e": None}]}}
    assert type(plain["b"]) is dict


def test_defaults_are_spelled_out_in_nested_nodes() -> None:
    """Numbers, classes as what makes a part, and targets where they are defined."""
    here = {"_target_": "detector.heads.RoIHead", "_partial_": True, "width": 8}
    actual = with_defaults({"head": [here], "seed": 1})
    assert actual["seed"] == 1
    head = actual["head"][0]
    assert head["_target_"] == "detector.heads.roi.RoIHead"
    assert (head["width"], head["num_convs"], head["class_agnostic"]) == (8, 0, False)
    assert head["pooling"]["_target_"] == "detector.layers.roi_pooling.RoIAlign"
    named = {**here, "pooling": {"_target_": "detector.layers.RoIAlign", "_partial_": True}}
    assert with_defaults(named) == head
    assert "features" not in head, "has no default"
    assert with_defaults({"_target_": "os.system"}) == {"_target_": "os.system"}


def test_what_an_older_checkpoint_does_not_say_of_losses_and_branches_is_what_a_new_one_says() -> None:
    """A run of before resumes: no option looks changed."""
    head = with_defaults({"_target_": "detector.heads.RoIHead", "_partial_": True})
    assert head["branches"] == {}
    assert isinstance(head["branches"], dict), "read like that of a file"
    message = {"_target_": "detector.ops.SmoothL1", "beta": 1 / 9}
    assert with_defaults({**head, "box_loss": message}) == head
