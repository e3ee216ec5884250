"""Train a published recipe on COCO and compare the AP with the published one.

    python scripts/reproduce.py faster_rcnn_r50_1x --root data/coco [any override of detector train]

The published number is read from the recipe's comment. Exits with 1 where ours is more than 0.5 AP below it.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from detector.config.paths import config_dir

TOLERANCE_AP = 0.5  # the spread of seeds on COCO is 0.1 to 0.2


def published_ap(recipe: str) -> float | None:
    """In percent, as papers print it; None where nobody published one."""
    text = (config_dir() / "experiment" / f"{recipe}.yaml").read_text()
    match = re.search(r"^# (\d+\.\d) AP on COCO val2017", text, flags=re.MULTILINE)
    return float(match[1]) if match else None


def main() -> int:
    recipes = sorted(path.stem for path in (config_dir() / "experiment").glob("*.yaml"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=recipes)
    parser.add_argument("--root", type=Path, required=True, help="COCO's folder, see scripts/fetch_coco.py")
    parser.add_argument("--output", type=Path, help="by default runs/reproduce/RECIPE")
    arguments, overrides = parser.parse_known_args()
    output = arguments.output or Path("runs/reproduce") / arguments.recipe
    command = [
        "train",
        f"experiment={arguments.recipe}",
        f"data.root={arguments.root}",
        f"output_dir={output}",
    ]
    subprocess.run([sys.executable, "-m", "detector", *command, *overrides], check=True)
    ours = 100 * json.loads((output / "metrics.json").read_text())["AP"]
    published = published_ap(arguments.recipe)
    if published is None:
        print(f"{arguments.recipe}: {ours:.1f} AP; no published number")
        return 0
    print(f"{arguments.recipe}: {ours:.1f} AP, published {published:.1f} ({ours - published:+.1f})")
    return int(ours < published - TOLERANCE_AP)


if __name__ == "__main__":
    sys.exit(main())
