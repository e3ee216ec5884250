"""What is known of keypoints from their category, or is set."""

from typing import Any

import pytest

from detector.coco.annotations import Category
from detector.coco.person import COCO_PERSON, COCO_SIGMAS
from detector.data.keypoint_schemas import keypoint_schemas, pairs_by_name, schema_notes
from detector.data.shape_checks import require_used_options
from detector.structures import KeypointSchema

PERSON = Category(1, "person", "", COCO_PERSON, ((16, 14), (1, 2)))
CUP = Category(2, "cup", "")
HAND = Category(3, "hand", "", ("palm", "thumb"), ((0, 1), (1, 1), (1, 2)))


def schemas(*categories: Category, **options: Any) -> tuple[KeypointSchema | None, ...]:
    return keypoint_schemas(categories, **options)


def test_persons_have_sigmas_and_pairs_of_coco() -> None:
    person, cup = schemas(PERSON, CUP)
    assert cup is None
    assert person is not None
    assert person.sigmas == COCO_SIGMAS
    assert person.flip_permutation() == (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
    assert person.skeleton == (("left_ankle", "left_knee"), ("nose", "left_eye"))


def test_others_have_uniform_sigmas_and_lose_odd_pairs_of_their_skeleton() -> None:
    (hand,) = schemas(HAND)
    assert hand is not None
    assert hand.sigmas == (0.05, 0.05)
    assert hand.skeleton == (("palm", "thumb"),)
    (note,) = schema_notes([HAND], [hand])
    assert '"hand" has 2 keypoints; flipped images swap none of them' in note
    assert "the sigma 0.05 for each" in note
    assert (
        "2 of 3 pairs of its skeleton are left out, as they are not two different numbers from 1 to 2" in note
    )


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_eye", "right_eye"),
        ("eye_left", "eye_right"),
        ("l_eye", "r_eye"),
        ("eye.L", "eye.R"),
        ("LeftEye", "RightEye"),
        ("LEye", "REye"),
        ("lefteye", "righteye"),
        ("eye (left)", "eye (right)"),
        ("Left Front Paw", "Right Front Paw"),
        ("L1", "R1"),
    ],
)
def test_left_and_right_are_found_in_names(left: str, right: str) -> None:
    assert pairs_by_name(["nose", left, right, "tail"]) == ((left, right),)


def test_names_without_a_counterpart_are_no_pair() -> None:
    assert pairs_by_name(["left_eye", "right_ear", "bright", "leftover", "collar", "L", "reel"]) == ()


def test_options_replace_what_is_found() -> None:
    (hand,) = schemas(HAND, flip_pairs=(("palm", "thumb"),), sigmas=(0.1, 0.2))
    assert hand is not None
    assert hand.flip_permutation() == (1, 0)
    assert hand.sigmas == (0.1, 0.2)


def test_options_that_fit_no_category_are_errors() -> None:
    with pytest.raises(ValueError, match=r'keypoint_sigmas has 1 numbers, .* "hand" has 2: palm, thumb'):
        schemas(HAND, sigmas=(0.1,))
    with pytest.raises(ValueError, match=r"keypoint_flip_pairs has palm, toe, which are not all keypoints"):
        schemas(HAND, flip_pairs=(("palm", "toe"),))


@pytest.mark.parametrize(
    ("tasks", "options", "named"),
    [
        (("bbox",), (True, None, None), "data.boxes_from_masks"),
        (("bbox", "segm"), (True, (("a", "b"),), (0.1,)), "data.keypoint_flip_pairs, data.keypoint_sigmas"),
        ((), (False, None, (0.1,)), "data.keypoint_sigmas"),
    ],
)
def test_options_that_the_model_does_not_use_are_errors(tasks: Any, options: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: has no effect, as the model predicts "):
        require_used_options(tasks, *options)


def test_options_that_the_model_uses_are_no_errors() -> None:
    require_used_options(("bbox", "segm", "keypoints"), True, (("a", "b"),), (0.1,))
    require_used_options(("bbox",), False, None, None)
