"""`detector predict`: images in, drawings and results out."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detector.checkpoint import read_content, save_atomically
from detector.cli.main import main
from detector.coco.image_files import find_images
from detector.coco.images import ImageFileError, ReadOptions
from detector.commands.predict import ResultFiles, _by_class, drawn_names
from detector.commands.predicted_ids import PredictedIds
from detector.evaluation.coco import CocoEvaluator
from detector.predictor import Predictor, _reading, load_image
from detector.structures import Detections
from tests.training.tiny import run_training, write_dataset


def detector(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["detector", "predict", *map(str, arguments)])
        return main()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run_training(write_dataset(folder / "data"), folder / "run", "training.max_epochs=1")
    return folder / "run/checkpoints/best.ckpt"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three images of different sizes in folders, a cut-off one, and a file that is none."""
    rng = np.random.default_rng(0)
    for name, size in (("a.png", (64, 48)), ("sub/b.jpg", (30, 200)), ("sub/ü c.jpg", (90, 90))):
        file = tmp_path / "pictures" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(
            cv2.imencode(file.suffix, rng.integers(0, 256, (*size, 3), dtype=np.uint8))[1].tobytes()
        )
    whole = (tmp_path / "pictures/sub/b.jpg").read_bytes()
    (tmp_path / "pictures/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "pictures/notes.md").write_text("no image")
    return tmp_path / "pictures"


def test_folder_of_images(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = (f"checkpoint={checkpoint}", f"source={images}", f"output_dir={out}", "score_threshold=0.001")
    assert detector(*words, "batch_size=2", "accelerator=cpu") == 0
    output = capsys.readouterr()
    assert "cut.jpg" in output.err
    assert "annotations" not in output.err  # there are none to correct
    assert "in 3 images, 2 files skipped" in output.out
    assert "1 .md (notes.md)" in output.err
    drawn = {str(p.relative_to(out / "pictures")) for p in (out / "pictures").rglob("*.jpg")}
    assert drawn == {"a.png.jpg", "sub/b.jpg", "sub/ü c.jpg"}
    results = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    assert {(r["image_id"], Path(r["file_name"]).name) for r in results} == {
        (1, "a.png"),
        (3, "b.jpg"),
        (4, "ü c.jpg"),
    }
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results)
    assert {row["class"] for row in rows} <= {"disc", "square"}
    assert [row["class"] for row in rows] == [r["category_name"] for r in results]
    assert [float(row["score"]) for row in rows] == [r["score"] for r in results]
    # In pixels of each image, and readable as COCO results.
    wide = [r["bbox"] for r in results if r["image_id"] == 3]
    assert max(x + w for x, _, w, _ in wide) > 100
    assert max(y + h for _, y, _, h in wide) <= 30
    truth = {
        "images": [{"id": i} for i in (1, 3, 4)],
        "categories": [{"id": 3, "name": "disc"}, {"id": 7, "name": "square"}],
        "annotations": [],
    }
    CocoEvaluator(truth).evaluate(results)


def with_threshold(checkpoint: Path, threshold: float | None, file: Path) -> Path:
    """The checkpoint with another threshold of the best F1."""
    content = read_content(checkpoint)
    content["detector"]["best_f1_threshold"] = threshold
    save_atomically(content, file)
    return file


def test_auto_is_the_best_f1_of_validation(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = Predictor(checkpoint).predict(images / "a.png", score_threshold=0.0).scores
    middle = round(scores.median().item(), 4)
    own = with_threshold(checkpoint, middle, tmp_path / "own.ckpt")
    words = (f"source={images}/a.png", "accelerator=cpu")
    assert detector(f"checkpoint={own}", *words, f"output_dir={tmp_path}/out") == 0
    assert f"score threshold: {middle:g} (best F1 on validation)" in capsys.readouterr().out
    results = json.loads((tmp_path / "out/predictions.json").read_text())
    assert len(results) == (scores >= middle).sum()
    assert len(Predictor(own)(images / "a.png")) == len(results)


def test_auto_of_a_checkpoint_without_a_threshold_is_said(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = with_threshold(checkpoint, None, tmp_path / "none.ckpt")
    assert Predictor(none).lowest_score("auto") == 0.3
    assert detector(f"checkpoint={none}", f"source={images}/a.png", f"output_dir={tmp_path}/out") == 0
    assert "score threshold: 0.3 (the checkpoint has no best F1 on validation)" in capsys.readouterr().out


def test_threshold_that_no_box_reaches_is_answered_with_the_best_score(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Predictor(checkpoint)
    found = {name: model.predict(images / name, score_threshold=0.0) for name in ("sub/b.jpg", "sub/ü c.jpg")}
    scores = {name: one.scores.max().item() for name, one in found.items()}
    best = max(scores, key=lambda name: scores[name])
    words = (f"checkpoint={checkpoint}", f"source={images}/sub", "score_threshold=1.0", "accelerator=cpu")
    assert detector(*words, "batch_size=1", f"output_dir={tmp_path}/out") == 0
    said = capsys.readouterr()
    assert "note: no box in 2 images reaches score_threshold=1: the best score was" in said.err
    assert f"({Path(best).name}). Lower the threshold: score_threshold=" in said.err
    suggested = float(said.err.rpartition("score_threshold=")[2])
    assert suggested <= scores[best] < suggested + 0.0011
    assert "boxes: 0 in 2 images\n" in said.out


def test_boxes_are_counted_by_class(tmp_path: Path) -> None:
    labels = torch.tensor([1, 2, 2, 0, 2, 1])
    found = Detections(torch.tensor([[0.0, 0, 4, 4]] * 6), torch.full((6,), 0.5), labels)
    with ResultFiles(tmp_path, ["cat", "dog", "cow"], PredictedIds([1], [1, 2, 3])) as results:
        results.add(1, Path("a.jpg"), found, size=(8, 8))
    assert _by_class(results.counts) == " (3 cow, 2 dog, 1 cat)"
    assert _by_class(Counter(map(str, range(11)))) == f" ({', '.join(f'1 {n}' for n in range(10))}, ...)"
    assert _by_class(Counter()) == ""


def test_results_with_the_ids_of_annotations_evaluate(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "=sum.png").write_bytes((images / "a.png").read_bytes())
    names = ("sub/ü c.jpg", "a.png", "=sum.png")
    truth = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names, start=2)],
        "categories": [{"id": 8, "name": "disc"}, {"id": 3, "name": "square"}],
        "annotations": [{"id": 1, "image_id": 3, "category_id": 8, "bbox": [1, 1, 9, 9]}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "list.txt").write_text(
        "".join(f"pictures/{name}\n" for name in reversed(names)), encoding="utf-8"
    )
    out, annotations = tmp_path / "out", f"annotations={tmp_path}/gt.json"
    words = (f"checkpoint={checkpoint}", annotations, f"output_dir={out}", "score_threshold=0.001")
    assert detector(*words, f"source={tmp_path}/list.txt", "accelerator=cpu") == 0
    results = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    ids = {(r["image_id"], Path(r["file_name"]).name) for r in results}
    assert ids == {(2, "ü c.jpg"), (3, "a.png"), (4, "=sum.png")}
    assert {r["category_id"] for r in results} <= {8, 3}
    assert CocoEvaluator(truth).evaluate(results).notes == ()
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert {(int(row["image_id"]), row["file"][:1]) for row in csv.DictReader(file)} >= {(4, "/")}
    assert detector(*words, f"source={images}", "accelerator=cpu") == 2
    assert "2 of 5 files are not among its 3 images" in capsys.readouterr().err


def test_no_cell_runs_in_a_spreadsheet(tmp_path: Path) -> None:
    detections = Detections(torch.tensor([[-3.5, 0.0, 4.0, 4.0]]), torch.tensor([0.5]), torch.tensor([0]))
    file = Path('=HYPERLINK("x").jpg')
    with ResultFiles(tmp_path, ["@class"], PredictedIds([-7], ["+1"])) as results:
        results.add(1, file, detections, size=(8, 8))
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as rows:
        (row,) = csv.DictReader(rows)
    assert row["file"] == f"'{file}"
    assert (row["class"], row["category_id"]) == ("'@class", "'+1")
    assert (row["x"], row["image_id"]) == ("-3.5", "-7")
    (result,) = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))
    assert (result["file_name"], result["category_id"]) == (str(file), "+1")


def test_python_gives_the_same_whatever_the_batch(checkpoint: Path, images: Path) -> None:
    model = Predictor(checkpoint)
    assert model.class_names == ("disc", "square")
    file = images / "sub/b.jpg"
    image = cv2.imread(str(file))
    assert image is not None
    image = image[..., ::-1].copy()
    # Of equal sizes: images of other sizes would be padded.
    together = model.predict_batch([image[::-1].copy(), image], score_threshold=0.001)
    alone = model.predict(file, score_threshold=0.001)
    torch.testing.assert_close(alone.boxes, together[1].boxes, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(alone.scores, together[1].scores, rtol=1e-3, atol=1e-4)
    assert not torch.equal(together[0].scores, together[1].scores)
    assert len(model.predict(file, score_threshold=1.0)) == 0


def test_what_is_read_in_part_is_said(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "deep.PNG"), np.full((40, 40), 4000, np.uint16) - np.arange(40, dtype=np.uint16))
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    frames[0].save(folder / "two.gif", save_all=True, append_images=frames[1:])
    cv2.imwrite(str(folder / "large.bmp"), np.zeros((50, 50, 3), np.uint8))
    words = (f"checkpoint={checkpoint}", f"source={folder}", "draw=false", "accelerator=cpu")
    assert detector(*words, "max_image_pixels=1600", f"output_dir={tmp_path}/out") == 0
    output = capsys.readouterr()
    assert "in 2 images, 1 file skipped" in output.out
    assert "max_image_pixels=1600" in output.err
    assert "note: 1 file has several frames or pages" in output.err
    assert "1 of 1 images of more than 8 bits use less than a quarter" in output.err
    assert "'image_range=[3961,4000]'" in output.err


def test_files_are_read_as_in_training(checkpoint: Path, tmp_path: Path) -> None:
    assert _reading({"image_range": [0, 255], "max_image_pixels": 7}) == ReadOptions((0.0, 255.0), 7)
    assert _reading({}) == ReadOptions()  # a checkpoint of before these options
    model = Predictor(checkpoint)
    assert model.reading == ReadOptions("full", 250_000_000)
    file = tmp_path / "float.tif"
    Image.fromarray(np.linspace(0, 1, 1600, dtype=np.float32).reshape(40, 40)).save(file)
    with pytest.raises(ImageFileError, match=r"image_range=\[0,1\]"):
        model.predict(file)
    model.reading = ReadOptions(image_range=(0.0, 1.0))
    model.predict(file)


def test_no_image_gives_nothing(checkpoint: Path) -> None:
    assert Predictor(checkpoint).predict_batch([]) == []


@pytest.mark.parametrize("threshold", [7.0, -0.1, float("nan")])
def test_threshold_that_is_no_score(checkpoint: Path, images: Path, threshold: float) -> None:
    model = Predictor(checkpoint)
    with pytest.raises(ValueError, match=f"score_threshold = {threshold}: expected a number >= 0 and <= 1"):
        model.predict(images / "a.png", score_threshold=threshold)


def test_every_form_of_an_image_gives_the_same(checkpoint: Path, images: Path) -> None:
    model = Predictor(checkpoint)
    file = images / "a.png"
    pil_image = Image.open(file)
    array = np.array(pil_image)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    expected = model.predict(file, score_threshold=0.001)
    assert len(expected)
    assert expected.class_names == model.class_names
    assert expected.path == file
    for image in (str(file), pil_image, array, tensor, tensor / 255):
        alone = model(image, score_threshold=0.001)
        assert isinstance(alone, Detections)
        torch.testing.assert_close(alone.boxes, expected.boxes)
    many = model([file, pil_image, array], score_threshold=0.001, batch_size=2)
    assert [len(one) for one in many] == [len(expected)] * 3
    assert len(model(tensor[None].repeat(2, 1, 1, 1))) == 2
    assert np.array_equal(np.asarray(expected.read_image()), array)  # type: ignore[misc]  # a Predictor's has it


def test_files_of_a_folder_or_glob_know_their_path(checkpoint: Path, images: Path) -> None:
    model = Predictor(checkpoint)
    assert [result.path for result in model(images / "sub")] == [images / "sub/b.jpg", images / "sub/ü c.jpg"]  # type: ignore[union-attr]  # of a folder: a list
    assert [result.path for result in model(f"{images}/*.png")] == [images / "a.png"]  # type: ignore[union-attr]  # of a glob: a list
    with pytest.raises(ValueError, match=r"nowhere.jpg: found no file. Expected an image, a folder, a glob"):
        model("nowhere.jpg")


def test_predictor_says_what_it_detects(checkpoint: Path) -> None:
    assert repr(Predictor(checkpoint)) == "Predictor(2 classes: disc, square; on cpu)"


def test_earlier_way_to_load_is_answered(checkpoint: Path) -> None:
    with pytest.warns(FutureWarning, match=r"is Predictor\(path\) now"):
        assert Predictor.from_checkpoint(checkpoint).class_names == ("disc", "square")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(4, 4, 3), r"a tensor of shape \(3, height, width\), got \(4, 4, 3\)"),
        (torch.full((3, 4, 4), -1.5), r"floats in \[0, 1\], got -1.5 to -1.5. Leave out the normalization"),
        (Image.new("I;16", (4, 4)), "a PIL image of 8 bits, got the mode I;16. Pass the path of its file"),
    ],
)
def test_image_in_another_form_is_told(image: torch.Tensor | Image.Image, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_image(image)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_array_that_is_no_image(checkpoint: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected an image as uint8 RGB of shape \(height, width, 3\)"):
        Predictor(checkpoint).predict(np.zeros(shape, np.uint8))


def test_sources(images: Path, tmp_path: Path) -> None:
    assert find_images(str(images / "a.png")).files == [images / "a.png"]
    assert [p.name for p in find_images(f"{images}/**/*.jpg").files] == ["cut.jpg", "b.jpg", "ü c.jpg"]
    (tmp_path / "list.txt").write_text("pictures/a.png\n\npictures/sub/b.jpg\n")
    assert [p.name for p in find_images(str(tmp_path / "list.txt")).files] == ["a.png", "b.jpg"]
    with pytest.raises(ValueError, match=r"source=.*nowhere.* found no file"):
        find_images(str(tmp_path / "nowhere"))


def test_drawings_of_equal_names_do_not_collide(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a/1.jpg", "b/1.jpg", "b/1.png", "b/1.png.jpg")]
    assert drawn_names(files) == ["a/1.jpg", "b/1.jpg", "b/1.png.jpg", "b/1.png.jpg.jpg"]


def test_no_file_of_the_user_is_lost(
    checkpoint: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (images / "sub/b.jpg").read_bytes()
    words = (f"checkpoint={checkpoint}", f"source={images}", f"output_dir={images.parent}")
    assert detector(*words) == 2
    assert "would replace it" in capsys.readouterr().err
    assert (images / "sub/b.jpg").read_bytes() == before
    assert detector(*words[:2], f"output_dir={checkpoint.parents[1]}") == 2
    assert "is a training run" in capsys.readouterr().err


def test_nothing_but_bad_files_is_an_error(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"checkpoint={checkpoint}", f"source={images}/cut.jpg", f"output_dir={tmp_path}/out")
    assert detector(*words) == 2
    assert "none of 1 files is an image" in capsys.readouterr().err
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == []


def test_what_is_missing_is_told(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert detector(f"checkpoint={checkpoint}") == 2
    assert "source=<image, folder or glob>" in capsys.readouterr().err
