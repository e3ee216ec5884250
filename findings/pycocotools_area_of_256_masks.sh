#!/usr/bin/env bash
# pycocotools.mask.area takes a list of masks, but not of more than 255.
#
# Expected: the area of each mask, for a list of any length, as mask.toBbox and mask.iou take one.
# Seen: the length of the list itself is put into an array of uint8 on the way, which is of no use to the result.
# numpy 2 refuses 256 ("Python integer 256 out of bounds for uint8"); numpy 1 only warned. toBbox of the same
# list answers.
#
# Needs Python 3.11 or newer with venv. Exits 1 if this has changed.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv environment
environment/bin/pip install --quiet pycocotools==2.0.11 numpy==2.4.6

cat > areas.py <<'P'
import sys
from importlib.metadata import version

import numpy as np
from pycocotools import mask

print(f"pycocotools {version('pycocotools')}, numpy {version('numpy')}, Python {sys.version.split()[0]}")
square = mask.encode(np.asfortranarray(np.ones((4, 4), np.uint8)))
print("area of 255 masks:", set(mask.area([square] * 255).tolist()))
assert mask.toBbox([square] * 256).shape == (256, 4), "boxes of 256 masks"
try:
    areas = mask.area([square] * 256)
except OverflowError as error:
    print(f"area of 256 masks: OverflowError: {error}")
else:
    sys.exit(f"changed: the areas of 256 masks are {set(areas.tolist())}")
P
environment/bin/python areas.py
