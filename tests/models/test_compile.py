"""Backbone, neck and dense head are one graph, without a break, and compute the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: the tests' checks of shapes are no part of what is compiled. Without generating
# code, which needs a compiler and minutes.
SCRIPT = """
import sys
import torch
from tests.samples import make_batch, small_faster_rcnn, small_fcos, total

make = {"fcos": small_fcos, "faster_rcnn": small_faster_rcnn}[sys.argv[1]]
stages = (4, 5) if sys.argv[2] == "deformable" else ()
torch.manual_seed(0)
model = make(stages=stages)
batch = make_batch([[[8.0, 8, 40, 40]], [[0, 0, 50, 64]]], [[0], [1]], sizes=[(64, 64), (64, 50)])
expected = model.loss(batch)
model.compile(backend="aot_eager")  # as training does; fullgraph=True would allow numbers of tensors, too
losses = model.loss(batch)
total(losses).backward()
for name, value in expected.items():
    torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-5)
assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
counters = torch._dynamo.utils.counters
assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"], counters
print("same")
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["fcos", pytest.param("faster_rcnn", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("stages", ["deformable", pytest.param("plain", marks=pytest.mark.nightly)])
def test_compiled_model_computes_the_same(model: str, stages: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, model, stages], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "same"
