"""What is installed: the wheel's content, the lock file, and the places where configurations are found."""

from __future__ import annotations

import re
import tomllib
import zipfile
from pathlib import Path

import pytest

import detector
from detector.config import paths
from detector.config.paths import config_dir

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def locked() -> dict[str, str]:
    """Requirement lines of the lock file by package name."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return {m[1]: m[0] for line in lines if (m := re.match(r"([a-z0-9-]+)==\S+", line))}


def required() -> list[str]:
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    return [re.split(r"[<>=\[]", line)[0].lower() for line in lines]


def test_lock_file_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"://|index-url|find-links|@ file", text)


def test_lock_file_has_a_hash_for_every_package() -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text(encoding="utf-8").strip())
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_lock_file_has_everything_that_the_project_asks_for() -> None:
    assert set(required()) <= set(locked())


def test_malicious_releases_of_lightning_are_excluded() -> None:
    (lightning,) = [line for line in PROJECT["dependencies"] if line.startswith("lightning")]
    assert tuple(map(int, lightning.removeprefix("lightning>=").split("."))) >= (2, 6, 6)


def test_configurations_of_a_checkout_are_found() -> None:
    assert config_dir() == ROOT / "configs"


def test_configurations_of_an_installed_package_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").touch()
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path)
    assert config_dir() == tmp_path / "configs"


def test_incomplete_installation_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "detector")
    with pytest.raises(FileNotFoundError, match="the installation is incomplete"):
        config_dir()


def test_wheel_has_the_package_and_every_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = pytest.importorskip("hatchling.build", reason="comes with the dev extra")
    monkeypatch.chdir(ROOT)
    wheel = tmp_path / build.build_wheel(str(tmp_path))
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    info = f"detector-{detector.__version__}.dist-info"
    expected = {
        f"detector/configs/{f.relative_to(ROOT / 'configs')}" for f in (ROOT / "configs").rglob("*.yaml")
    }
    expected |= {
        str(f.relative_to(ROOT)) for kind in ("*.py", "templates/*") for f in (ROOT / "detector").rglob(kind)
    }
    assert expected <= names
    assert {name for name in names - expected if not name.startswith(f"{info}/")} == set()
    assert f"{info}/licenses/LICENSE" in names
