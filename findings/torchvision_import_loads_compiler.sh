#!/usr/bin/env bash
# Importing torchvision loads torch's compiler, and so takes as long as importing torch.
#
# Expected: `import torchvision` costs its own modules. torch keeps torch._dynamo out of its own import, and
# torchvision's roi_align wraps its compiled function in a decorator "to avoid eagerly importing dynamo".
# Seen: the same file imports a helper from torch._dynamo.utils at its top, so every import of torchvision
# loads the whole compiler: hundreds of modules, and about as many CPU seconds as torch itself. The operators
# need none of it: their library alone, loaded by torch.ops.load_library, suppresses boxes in milliseconds.
#
# Needs Python 3.11 or newer with venv, Linux. Exits 1 if any of this has changed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv environment
environment/bin/pip install --quiet torch==2.15.0 torchvision==0.29.2 numpy==2.4.6

cat > loaded.py <<'P'
import importlib.util, resource, sys
from pathlib import Path

def seconds():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

import torch
after_torch = seconds()
assert "torch._dynamo" not in sys.modules, "torch itself loads its compiler now"
folder = Path(importlib.util.find_spec("torchvision").origin).parent
torch.ops.load_library(next(folder.glob("_C*.so")))
boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
kept = torch.ops.torchvision.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
assert kept.tolist() == [0, 2] and "torchvision" not in sys.modules
after_library = seconds()
import torchvision
after_package = seconds()
print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, Python {sys.version.split()[0]}")
print(f"CPU seconds: torch {after_torch:.2f}, torchvision's operators alone {after_library - after_torch:.2f}, "
      f"torchvision's package {after_package - after_library:.2f}")
compiler = sum(name.startswith(("torch._dynamo", "torch._inductor")) for name in sys.modules)
print(f"modules of torch's compiler after `import torchvision`: {compiler}")
sys.exit(0 if "torch._dynamo" in sys.modules else "changed: torchvision no longer loads torch's compiler")
P
environment/bin/python loaded.py
