"""The command line: verbs, overrides, sweeps, and what a user is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from detector.cli import main as cli
from detector.runs.folder import sole_use
from detector.version import __version__
from tests import echo_command

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(cli.VERBS, "train", replace(cli.VERBS["train"], module="tests.echo_command"))
    echo_command.runs.clear()
    echo_command.argv.clear()


@pytest.fixture
def detector(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["detector", *words])
        code = cli.main()
        out, err = capsys.readouterr()
        assert sys.argv == ["detector", *words], "the command line is as it was"
        return code, out, err

    return run


def fresh(*words: str, then: str) -> subprocess.CompletedProcess[str]:
    """Runs a command line in a fresh interpreter, `then` an expression of what was imported."""
    code = f"""
import sys
from detector.cli.main import main
try:
    sys.exit(main())
finally:
    print({then})
"""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        check=False,
    )


HEAVY = "[m for m in ('torch', 'hydra', 'omegaconf', 'pydantic', 'lightning', 'numpy') if m in sys.modules]"

# --- without a verb


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_the_verbs(detector: Callable[..., tuple[int, str, str]], words: list[str]) -> None:
    code, out, _ = detector(*words)
    assert code == 0
    assert all(verb.summary in out for verb in cli.VERBS.values())


def test_version(detector: Callable[..., tuple[int, str, str]]) -> None:
    assert detector("--version") == (0, f"detector {__version__}\n", "")


@pytest.mark.parametrize(
    ("word", "message"),
    [("trian", "Did you mean train?"), ("xyz", "Verbs: train, "), ("seed=1", "the verb comes first")],
)
def test_wrong_verb_is_told(detector: Callable[..., tuple[int, str, str]], word: str, message: str) -> None:
    code, _, err = detector(word)
    assert code == 2
    assert message in err


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"], ["trian"]])
def test_answer_without_a_verb_imports_nothing_heavy(words: list[str]) -> None:
    assert fresh(*words, then=HEAVY).stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", [["train", "--cfg", "job"], ["train", "--help"]])
def test_showing_the_configuration_imports_no_torch(words: list[str]) -> None:
    done = fresh(*words, then="'torch' in sys.modules, 'pydantic' in sys.modules")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False False"


def test_module_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "detector", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"detector {__version__}\n"


# --- running


def test_command_gets_the_composed_configuration(detector: Callable[..., tuple[int, str, str]]) -> None:
    assert detector("train", "seed=3", "model/backbone=resnet50", "training.max_epochs=2") == (0, "", "")
    (cfg,) = echo_command.runs
    assert (cfg["seed"], cfg["model"]["backbone"]["depth"], cfg["training"]["max_epochs"]) == (3, 50, 2)


def test_command_keeps_the_memory_it_frees(
    detector: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    monkeypatch.setattr("detector.cli.jobs.keep_freed_memory", lambda: calls.append(None))
    assert detector("train")[0] == 0
    assert len(calls) == 1


def test_hydra_leaves_no_file(detector: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    detector("train")
    assert list(tmp_path.iterdir()) == []


def test_ranks_of_a_distributed_run_get_verb_and_folder(
    detector: Callable[..., tuple[int, str, str]],
) -> None:
    detector("train", "seed=3")
    output_dir = echo_command.runs[0]["output_dir"]
    assert echo_command.argv == [["detector", "train", "seed=3", f"output_dir='{output_dir}'"]]


def test_own_folder_of_configurations_is_searched(
    detector: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 42\n")
    assert detector("train", "--config-dir", str(tmp_path), "experiment=mine")[0] == 0
    assert echo_command.runs[0]["seed"] == 42


def test_added_option_must_be_one_of_the_signature(detector: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = detector("train", "+model.backbone.deptth=50")
    assert code == 2
    assert "model.backbone.deptth: detector.backbones.ResNet has no option deptth" in err
    assert "Did you mean" in err


def test_misspelled_key_in_an_own_file_is_told(
    detector: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ntraining: {max_epoch: 42}\n")
    code, _, err = detector("train", "--config-dir", str(tmp_path), "experiment=mine")
    assert code == 2
    assert "Did you mean training.max_epochs?" in err


def test_class_of_the_users_own_is_refused_until_allowed(
    detector: Callable[..., tuple[int, str, str]],
) -> None:
    own = "+data.augmentation.own={_target_: tests.parts.OwnAugmentation}"
    code, _, err = detector("train", own)
    assert code == 2
    assert "'+allow_targets=[tests.parts.OwnAugmentation]'" in err
    assert detector("train", own, "+allow_targets=[tests.parts.OwnAugmentation]")[0] == 0


def test_an_interpolation_that_fails_in_the_output_folder_is_told(
    detector: Callable[..., tuple[int, str, str]],
) -> None:
    code, _, err = detector("train", "name=${0}")
    assert (code, "Traceback" in err) == (2, False)
    assert "output_dir: its interpolation fails" in err


@pytest.mark.parametrize(
    ("word", "message"), [("model=0", "no model/0.yaml"), ("hydra=null", "group=choice")]
)
def test_choice_of_a_group_that_is_no_text_is_explained(
    word: str, message: str, detector: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = detector("train", word, "output_dir=out")
    assert code == 2
    assert message in err


# --- sweeps


def test_sweep_runs_every_combination_in_its_own_folder(
    detector: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, _, err = detector("train", "training.max_epochs=2", "-m", "seed=1,2", "output_dir=out")
    assert (code, err) == (0, "")
    assert [(r["seed"], r["output_dir"]) for r in echo_command.runs] == [(1, "out/0"), (2, "out/1")]
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")] == ["out/multirun.yaml"]


@pytest.mark.slow
def test_sweep_over_lists(detector: Callable[..., tuple[int, str, str]]) -> None:
    assert detector("train", "-m", "model.backbone.deform.stages=[],[5],[3,4,5]", "output_dir=out")[0] == 0
    stages = [run["model"]["backbone"]["deform"]["stages"] for run in echo_command.runs]
    assert stages == [[], [5], [3, 4, 5]]


@pytest.mark.slow
def test_default_folders_of_a_sweep_do_not_collide(detector: Callable[..., tuple[int, str, str]]) -> None:
    assert detector("train", "-m", "seed=1,2,3")[0] == 0
    assert len({run["output_dir"] for run in echo_command.runs}) == 3
    assert not [run for run in echo_command.runs if "=" in run["output_dir"]]


def test_rank_of_a_sweep_runs_its_job_alone(detector: Callable[..., tuple[int, str, str]]) -> None:
    detector("train", "-m", "seed=1,2", "output_dir=out")
    assert echo_command.argv[1] == ["detector", "train", "seed=2", "output_dir=out", "output_dir='out/1'"]


def test_wrong_job_of_a_sweep_is_told_before_any_runs(
    detector: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, _, err = detector("train", "-m", "seed=1,-1", "training.max_epochs=1,0", "output_dir=out")
    assert code == 2
    assert "job 1 of the sweep): training.max_epochs = 0" in err
    assert "job 2 of the sweep)" in err
    assert "seed = -1: expected an integer >= 0" in err
    assert echo_command.runs == []
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_sweep_that_cannot_be_made_is_explained(
    detector: Callable[..., tuple[int, str, str]],
) -> None:
    code, _, err = detector("train", "-m", "seed=1,2", f"name=n{'9' * 300}")
    assert code == 2
    assert "File name too long. Choose another output_dir, or name." in err
    assert echo_command.runs == []


def test_failing_job_does_not_stop_the_sweep(detector: Callable[..., tuple[int, str, str]]) -> None:
    assert detector("train", "-m", "seed=901,1", "output_dir=out")[0] == 1
    assert [run["seed"] for run in echo_command.runs] == [901, 1]


# --- mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainig.max_epochs=3"], "Did you mean training.max_epochs=3?"),
        (["max_epochs=3"], "Did you mean training.max_epochs=3?"),
        (["optimiser=adamw"], "Did you mean optimizer=adamw?"),
        (["optimizer=adam"], "Did you mean optimizer=adamw? There are: adamw, sgd."),
        (["experiment=mine"], "there is no experiment/mine.yaml"),
        (["model.backbone=resnet50"], "write model/backbone=resnet50"),
        (["data/root=x"], "Did you mean data.root=...?"),
        (["model/bakbone=resnet50"], "Did you mean model/backbone=...?"),
        (["training.max_epochs=-5"], "training.max_epochs = -5: expected an integer >= 1"),
        (["training.max_epochs=ten"], "training.max_epochs = ten: expected an integer >= 1"),
        (["~training.max_epochs"], "training.max_epochs"),
        (["--max-epochs", "3"], "Did you mean training.max_epochs=3?"),
        (["--max_epochs=3"], "Did you mean training.max_epochs=3?"),
        (["--lr", "0.1", "--seed", "3"], "Write optimizer.lr=0.1."),
        (["seed", "=", "3"], "write it without spaces: seed=3"),
        (["seed=", "3"], "write it without spaces: seed=3"),
        (["seed", "=3"], "write it without spaces: seed=3"),
        (["config.yaml"], "config.yaml: expected key=value"),
        (["data.root=x,y"], "-m"),
        (["seed=0,1"], "-m"),
        (["data.größe=3"], "data.größe"),
        (["~model.head"], "model.head: detector.models.build_detector needs it"),
        (["~data"], "data"),
        (["+model.num_classes=3"], "model.num_classes: the number of classes comes from the data"),
        (["+model.head.num_classes=3"], "model.head.num_classes: the number of classes comes from the data"),
        (["+model.neck.features=3"], "model.neck.features: the run gives it"),
        (["-m", "model=glob(f*)", "sed=1"], "Did you mean seed=1?"),
        (["+sed=3"], "Did you mean seed"),
        (["--shell-completion"], "detector completion bash"),
        (["--config-name", "nothing"], "nothing"),
        (["data.root=~/coco"], "/coco or data.root=$HOME/coco"),
        (['data.root="~/coco"'], "~ is not expanded here"),
        (["data.root=~nobody/coco"], "Write the path out"),
        (["--cfg", "jobs"], "invalid choice: 'jobs'"),
        (["-m", "--cfg", "job"], "give one of them"),
        (["--run", "--cfg", "job"], "give one of them"),
        (["--run", "-m", "seed=1,2"], "give one of them"),
        (["--cfg", "job", "--info"], "give one of them"),
        (["--resolve"], "give --cfg job with it"),
        (["--config-dir", "nowhere"], "nowhere"),
    ],
)
def test_mistake_is_told_in_one_message(
    detector: Callable[..., tuple[int, str, str]], words: list[str], message: str
) -> None:
    code, out, err = detector("train", *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in out + err
    assert "To append" not in err
    assert echo_command.runs == []


def test_mistakes_of_all_kinds_are_told_at_once(detector: Callable[..., tuple[int, str, str]]) -> None:
    _, _, err = detector("train", "sed=1", "optimizer=adam", "training.max_epochs=0", "data.root=~/x")
    for number, message in enumerate(
        ("data.root=~/x:", "optimizer=adam:", "sed:", "training.max_epochs = 0:")
    ):
        assert f"  {number + 1}. {message}" in err
    assert err.count("data.root") == 3  # once, with its two cures


def test_typo_in_every_key_of_the_command_line_gets_the_right_suggestion() -> None:
    from detector.config.overrides import explain, parse_arguments
    from tests.configurations import leaves, misspelled, plain

    keys = [path for path in leaves(plain("train")) if "." not in path[-1]]
    words = [f"{'.'.join((*path[:-1], misspelled(path[-1])))}=1" for path in keys]
    problems = explain(parse_arguments("train", words), ValueError())
    for path, word in zip(keys, words, strict=True):
        assert problems[word].endswith(f"Did you mean {'.'.join(path)}=1?")


@pytest.mark.parametrize("path", ["/home/jürgen/Daten", "it's", "a;b", "a=b", "{a}", "[a]", "a#b", "2024"])
def test_path_needs_no_quotes_of_hydra(detector: Callable[..., tuple[int, str, str]], path: str) -> None:
    assert detector("train", f"data.root={path}") == (0, "", "")
    assert echo_command.runs[0]["data"]["root"] == path


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("defaults: [{override /model/backbone: nope}]", [], "model/backbone/nope"),
        ("training: {max_epoch: 42}", ["sed=1"], "sed: there is no such option"),
    ],
)
def test_own_file_is_no_problem_beside_the_true_one(
    detector: Callable[..., tuple[int, str, str]], tmp_path: Path, text: str, words: list[str], message: str
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    code, _, err = detector("train", "--config-dir", str(tmp_path), "experiment=mine", *words)
    assert code == 2
    assert message in err
    assert "there is no experiment/mine.yaml" not in err


# --- accidents


def test_interrupt_ends_with_its_exit_code(detector: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = detector("train", "seed=900")
    assert (code, err) == (130, "\nInterrupted.\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_before_there_is_anything_to_keep_ends_with_its_exit_code(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """While torch is loaded, to the process and to its group, as timeout(1) sends it."""
    command = [sys.executable, "-m", "detector", "train", f"data.root={tmp_path}/data"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    assert process.stderr is not None
    assert process.stderr.readline() == f"Loading detector {__version__} ...\n"
    process.send_signal(number)
    os.killpg(process.pid, number)
    assert (*process.communicate(timeout=600), process.returncode) == ("", "\nInterrupted.\n", code)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_signal_ends_with_its_exit_code_and_a_word(
    detector: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    number = signal.Signals[name]
    monkeypatch.setattr(echo_command, "run", lambda *_: os.kill(os.getpid(), number))
    code, _, err = detector("train")
    assert code == 128 + number
    assert err == ("\nInterrupted.\n" if name == "SIGTERM" else f"\nInterrupted by {name}.\n")


def test_signal_that_is_ignored_stays_so(
    detector: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """nohup(1) ignores SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(echo_command, "run", lambda *_: os.kill(os.getpid(), signal.SIGHUP))
        assert detector("train")[0] == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_second_command_in_a_folder_is_refused(detector: Callable[..., tuple[int, str, str]]) -> None:
    with sole_use(Path("run"), command="predict"):
        code, _, err = detector("train", "output_dir=run")
    assert (code, echo_command.runs) == (2, [])
    assert f"output_dir=run is in use by process {os.getpid()}" in err
    assert "detector predict" in err


@pytest.mark.parametrize("seed", [901, 902])
def test_bug_keeps_its_traceback(detector: Callable[..., tuple[int, str, str]], seed: int) -> None:
    code, _, err = detector("train", f"seed={seed}")
    assert code == 1
    assert "Traceback" in err
    assert "echo_command.py" in err


@pytest.mark.parametrize(
    ("seed", "message"), [(903, "the loss is nan"), (904, "No space left on device: 'last.ckpt'")]
)
def test_fault_of_a_run_needs_no_traceback(
    detector: Callable[..., tuple[int, str, str]], seed: int, message: str
) -> None:
    code, _, err = detector("train", f"seed={seed}")
    assert code == 1
    assert message in err
    assert "Traceback" not in err


def test_value_error_of_our_own_is_the_users(detector: Callable[..., tuple[int, str, str]]) -> None:
    """`detector evaluate` without anything to evaluate raises one."""
    code, out, err = detector("evaluate")
    assert code == 2
    assert "Traceback" not in out + err
    assert "\ndetector: Nothing to evaluate." in f"\n{err}"
