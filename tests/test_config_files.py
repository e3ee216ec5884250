"""Every YAML file in configs/ against the signatures that it configures."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from detector.cli.main import VERBS
from detector.config.build import build
from detector.config.check import SPECIAL_KEYS, check, nodes
from detector.config.errors import ConfigError
from detector.config.overrides import composed as compose_words
from detector.config.paths import config_dir
from detector.config.signatures import schema_of
from detector.config.targets import allowing, locate
from tests.configurations import composed, leaves, misspelled, plain

FILES = sorted(config_dir().rglob("*.yaml"))
GROUP_FILES = [f for f in FILES if f.parent != config_dir() and f.parent.name != "hydra"]


def options(verb: str) -> Any:
    return getattr(importlib.import_module(VERBS[verb].module), "Options", None)


def parent(values: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path[:-1]:
        values = values[key]
    return values


# The options of compare are those of train and a few more.
MANY = [pytest.param(verb, marks=pytest.mark.slow) if verb == "compare" else verb for verb in VERBS]


# What a choice needs beside it: a value that only the user has, the model that a part belongs to.
MANDATORY = {
    "model/backbone/resnet": ["model.backbone.depth=18"],
    "model/head/faster_rcnn": ["model=faster_rcnn"],
    **{
        f"model/head/{part}/box_loss/{kind}": ["model=faster_rcnn"]
        for part in ("rpn", "roi")
        for kind in ("smooth_l1", "l1", "giou")
    },
    **{
        f"model/head/roi/pooling/{kind}": ["model=faster_rcnn"]
        for kind in ("align", "deform_v1", "deform_v2")
    },
    **{f"model/head/roi/branch/{kind}": ["model=mask_rcnn"] for kind in ("mask", "keypoint")},
    "recipe/warped_shapes_faster_rcnn_small": ["model=faster_rcnn_small"],
    "recipe/warped_shapes_fcos_small": ["model=fcos_small"],
    "recipe/warped_shapes_mask_rcnn_small": ["model=mask_rcnn_small"],
    "recipe/warped_shapes_keypoint_rcnn_small": ["model=keypoint_rcnn_small"],
    **{
        f"experiment/faster_rcnn_x101_1x{kind}": ["model.backbone.weights=x101.pth"]
        for kind in ("", "_dcn_v1", "_dcn_v2")
    },
}


# Groups that are part of other ones, and a place where they are.
PLACES = {"model/layers": "model.neck.deform", "model/head/roi/branch": "model.head.roi.branches.mask"}


@cache
def group_overrides(file: Path) -> tuple[str, list[str]]:
    """The verb that uses the group of a file, and the overrides that choose it."""
    group, choice = file.relative_to(config_dir()).parent.as_posix(), file.stem
    place = f"@{PLACES[group]}" if group in PLACES else ""
    overrides = [f"{group}{place}={choice}", *MANDATORY.get(f"{group}/{choice}", [])]
    for verb in VERBS:
        try:
            composed(verb, *overrides)
        except HydraException:  # this verb has no such group
            continue
        return verb, overrides
    raise AssertionError(f"no verb uses {file}")


@pytest.mark.parametrize("verb", VERBS)
def test_primary_configuration_is_right(verb: str) -> None:
    check(composed(verb), options(verb))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_what_its_options_are(verb: str) -> None:
    assert options(verb) is not None


@pytest.mark.parametrize("file", GROUP_FILES, ids=lambda f: f.relative_to(config_dir()).as_posix())
def test_choice_of_a_group_is_right(file: Path) -> None:
    verb, overrides = group_overrides(file)
    check(composed(verb, *overrides), options(verb))


@pytest.mark.parametrize("verb", VERBS)
def test_every_configured_parameter_has_an_annotation_that_can_be_read(verb: str) -> None:
    for path, node in nodes(plain(verb)):
        target, _ = locate(node)
        if not node["_target_"].startswith("detector."):
            continue
        annotations = schema_of(target).annotations
        blind = [key for key in node if key not in SPECIAL_KEYS and annotations[key] is Any]
        assert not blind, f"{path}: {node['_target_']} does not say what {blind} may be"


@pytest.mark.parametrize("verb", MANY)
def test_typo_in_every_key_gets_the_right_suggestion(verb: str) -> None:
    values = plain(verb)
    schema = options(verb)
    for path in leaves(values):
        if path[-2:-1] == ("augmentation",) or path[:2] == ("compare", "variants"):
            continue  # their keys are the user's own names
        wrong = copy.deepcopy(values)
        inner = parent(wrong, path)
        inner[misspelled(path[-1])] = inner.pop(path[-1])
        with pytest.raises(ConfigError) as raised:
            check(OmegaConf.create(wrong), schema)
        (problem,) = raised.value.problems
        assert problem.startswith(".".join((*path[:-1], misspelled(path[-1]))))
        assert problem.endswith(f"Did you mean {'.'.join(path)}?")


@pytest.mark.parametrize("verb", MANY)
def test_every_value_is_checked(verb: str) -> None:
    """No annotation takes a list of mappings."""
    values = plain(verb)
    for path in leaves(values):
        wrong = copy.deepcopy(values)
        parent(wrong, path)[path[-1]] = [{"nonsense": 1}]
        with pytest.raises(ConfigError) as raised:
            check(OmegaConf.create(wrong), options(verb))
        assert raised.value.problems[0].startswith(".".join(path)), path


def commented_options(file: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """The keys from the file's top to each option, and the comment beside it."""
    above: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        value, _, comment = line.partition("#")
        if ":" in value:
            indent = len(value) - len(value.lstrip())
            above = [(i, key) for i, key in above if i < indent]
            above.append((indent, value.partition(":")[0].strip()))
            yield tuple(key for _, key in above), comment


@pytest.mark.parametrize("file", GROUP_FILES, ids=lambda f: f.relative_to(config_dir()).as_posix())
def test_documented_choices_are_real(file: Path) -> None:
    """A comment `# a | b | c` beside an option lists values that the check accepts."""
    comments = ((keys, comment.partition(": ")[0]) for keys, comment in commented_options(file))
    listed = [(keys, words.split("|")) for keys, words in comments if "|" in words]
    if not listed:
        return
    verb, overrides = group_overrides(file)
    base = plain(verb, *overrides)
    group = file.relative_to(config_dir()).parent.as_posix()
    node = tuple(PLACES[group].split(".")) if group in PLACES else tuple(group.split("/"))
    for keys, words in listed:
        same_end = [p for p in leaves(base) if p[-len(keys) :] == keys]
        path = (*node, *keys) if (*node, *keys) in same_end else same_end[0]
        for word in words:
            choice = word.strip().split(",")[0].split(" ")[0]
            if not choice.replace("-", "").replace("_", "").isalnum() or choice == "a":
                continue
            changed = copy.deepcopy(base)
            parent(changed, path)[path[-1]] = OmegaConf.create(f"x: {choice}").x
            check(OmegaConf.create(changed), options(verb))


@pytest.mark.parametrize("part", ["rpn", "roi"])
@pytest.mark.parametrize("kind", ["smooth_l1", "l1", "giou"])
def test_a_box_loss_as_it_was_chosen_before_is_answered_with_how_it_is_now(part: str, kind: str) -> None:
    cfg = composed("train", "model=faster_rcnn", f"model.head.{part}.box_loss={kind}")
    with pytest.raises(ConfigError) as raised:
        check(cfg, options("train"))
    (problem,) = raised.value.problems
    assert problem.startswith(f"model.head.{part}.box_loss = {kind}: ")
    assert problem.endswith(f"write model/head/{part}/box_loss={kind}")
    check(composed("train", "model=faster_rcnn", f"model/head/{part}/box_loss={kind}"), options("train"))


@pytest.mark.parametrize("part", ["rpn", "roi"])
def test_the_beta_of_smooth_l1_as_it_was_given_before_is_answered_with_how_it_is_now(part: str) -> None:
    words = ["model=faster_rcnn", f"model.head.{part}.smooth_l1_beta=0.5"]
    with initialize_config_dir(str(config_dir()), version_base="1.3"), pytest.raises(ConfigError) as raised:
        compose_words("train", words)
    now = f"model.head.{part}.box_loss.beta"
    (problem,) = raised.value.problems
    assert problem == f"{words[1]}: model.head.{part}.smooth_l1_beta is {now} now. Write {now}=0.5"
    cfg = composed("train", "model=faster_rcnn", f"{now}=0.5")
    assert cfg.model.head[part].box_loss.beta == 0.5


def test_a_loss_from_outside_the_package_is_one_override() -> None:
    word = "model.head.box_loss._target_=tests.ops.test_losses.CenterDistance"
    with allowing(["tests."]):
        check(composed("train", word), options("train"))
        built = build(composed("train", word).model)(num_classes=1)
    assert type(built.head.box_loss).__name__ == "CenterDistance"


def test_a_branch_from_outside_the_package_is_one_override() -> None:
    branch = "{_target_: tests.heads.test_roi_branch.Point, _partial_: true}"
    words = ["model=faster_rcnn_small", f"+model.head.roi.branches.point={branch}"]
    with allowing(["tests."]):
        check(composed("train", *words), options("train"))
        built = build(composed("train", *words).model)(num_classes=1)
    assert [*built.head.roi_heads.branches] == ["point"]


def test_no_file_in_the_repository_has_an_equals_sign_in_its_name() -> None:
    root = Path(__file__).resolve().parents[1]
    folders = [root / name for name in ("configs", "detector", "docs", "scripts", "tests")]
    assert not [f for folder in folders for f in folder.rglob("*=*")]
