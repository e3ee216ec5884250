"""What a recorded graph computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# In a process of its own: the tests' checks of shapes are no part of what is recorded.
SCRIPT = """
import sys, torch
from detector.models.exporting import recorded
from tests.samples import small_fcos
torch.export.save(recorded(small_fcos()), sys.argv[1])
graph = torch.export.load(sys.argv[1]).module(check_guards=False)
outputs = graph(torch.zeros(2, 3, 64, 96, dtype=torch.uint8), torch.tensor([[64, 96], [64, 90]]))
print([output.requires_grad for output in outputs])
"""


def test_results_of_a_file_carry_no_history_of_gradients(tmp_path: Path) -> None:
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "graph.pt2")]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=600)
    assert done.stdout == "[False, False, False]\n", done.stderr
