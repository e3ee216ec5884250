"""No verb asks the network, nor does a library or a process that it starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("no_network.c")
COMPILER = shutil.which("cc") or shutil.which("gcc")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        COMPILER is None or sys.platform != "linux", reason="needs a C compiler and Linux's LD_PRELOAD"
    ),
]


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """The environment of processes whose look-ups and connections are logged to `attempts`, and fail."""
    library = tmp_path / "no_network.so"
    assert COMPILER is not None
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    # CI silences onnxruntime too, of which this is to be a proof
    known = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key and key != "CI"}
    return {**known, "LD_PRELOAD": str(library), "NETWORK_LOG": str(tmp_path / "attempts")}


def test_the_library_sees_children_and_compiled_code(offline: dict[str, str], tmp_path: Path) -> None:
    """By a name that is reserved to exist nowhere, and an address that is reserved for documentation."""
    asks = (
        "import ctypes; result = ctypes.byref(ctypes.c_void_p()); "
        "ctypes.CDLL(None).getaddrinfo(b'nowhere.invalid', b'80', None, result)"
    )
    connects = "import socket; socket.socket().connect_ex(('192.0.2.1', 80))"
    for code in (asks, connects):
        child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
        subprocess.run([sys.executable, "-c", child], env=offline, check=True)
    log = (tmp_path / "attempts").read_text()
    assert log == "look-up of nowhere.invalid\nconnection to 192.0.2.1\n"


def test_no_command_asks_the_network(offline: dict[str, str], tmp_path: Path) -> None:
    """From drawing the data to the exported files; the last, onnxruntime's, for as long as it took to ask."""
    small = [
        "data.root=shapes",
        "data.source.num_train=8",
        "data.source.num_val=8",
        "data.batch_size=4",
        "model.head.score_threshold=0.0001",
    ]
    checkpoint = "checkpoint=run/checkpoints/best.ckpt"
    commands = (
        ["train", "output_dir=run", "data.num_workers=2", "training.max_epochs=1", *small],
        [
            "train",
            "output_dir=run",
            "training.resume=run/checkpoints/last.ckpt",
            "training.max_epochs=2",
            *small,
        ],
        ["evaluate", checkpoint, "output_dir=evaluation"],
        ["predict", checkpoint, "source=images", "output_dir=predictions"],
        [
            "compare",
            "output_dir=comparison",
            "runs_dir=runs",
            "latency=false",
            "training.max_epochs=1",
            *small,
        ],
        ["info"],
        ["export", checkpoint, "output_dir=pt2", "format=torch_export"],
        ["export", checkpoint, "output_dir=onnx"],
    )
    code = f"""
import sys, time
from pathlib import Path
from detector.cli import main as cli
for words in {commands}:
    if words[0] == "predict":
        image = next(path for path in Path("shapes").rglob("*.*") if path.suffix in (".png", ".jpg"))
        words[2] = f"source={{image.parent}}"
    sys.argv = ["detector", *words]
    assert cli.main() == 0, words
import numpy, onnxruntime
(file,) = Path("onnx").glob("*.onnx")
session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
end = time.monotonic() + 20
image = numpy.zeros((1, 3, 64, 64), numpy.uint8)
while time.monotonic() < end:
    session.run(None, {{"images": image, "image_sizes": numpy.array([[64, 64]])}})
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=offline, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    attempts = tmp_path / "attempts"
    assert not attempts.exists(), attempts.read_text()
