"""Builds the site of docs/ into site/, after writing its reference of all options.

    python scripts/build_site.py [--reports "A training=runs/first/report.html" ...]

`--reports` copies reports into the site and links them in the gallery.
A broken link or anchor fails the build.
"""

from __future__ import annotations

import argparse
import html
import shutil
import subprocess
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from detector.cli.main import VERBS
from detector.config.group_files import ConfigFiles
from detector.config.paths import config_dir
from detector.config.reference import OptionInfo, every_option
from detector.config.values import show

ROOT = Path(__file__).resolve().parents[1]
OPTIONS_PAGE = ROOT / "docs" / "reference" / "options.md"  # written here, ignored by git
SITE = ROOT / "site"
CHAPTERS = ("data", "model", "optimizer", "lr_scheduler", "training", "evaluation", "compare")
INTRODUCTION = """# Options

Every option, from the YAML files in `configs/` and the signatures of the classes that they configure.
`key=value` on the command line sets one; `group=choice` (such as
`optimizer=sgd`) chooses the file of a group, whose options then apply
([how](../howto/overrides.md)). `detector VERB --cfg job` prints the values that a command would use.
"""


def options_page() -> str:
    """Return the reference of all options as Markdown."""
    verbs = {verb.name: verb for verb in VERBS.values()}
    options = every_option({name: verb.module for name, verb in verbs.items()})
    parts = [INTRODUCTION, "## Groups\n", groups_table()]
    for name, verb in verbs.items():
        own = [option for option in options if option.group == name]
        parts += [f"## detector {name}\n", f"{verb.summary[0].upper()}{verb.summary[1:]}.\n", table(own)]
    for chapter in CHAPTERS:
        inside = [o for o in options if o.group not in verbs and o.key.partition(".")[0] == chapter]
        inside = sorted(inside, key=lambda option: option.group)
        parts.append(f"## {chapter}\n")
        for group, members in groupby(inside, key=lambda option: option.group):
            parts += [f"### {group}\n", table(members)]
    return "\n".join(parts)


def groups_table() -> str:
    """Return the choices of each group; those of a head show when the model is chosen that has it."""
    chosen = [(verb, ()) for verb in VERBS] + [("train", ("model=faster_rcnn",))]
    rows = {}
    for verb, words in chosen:
        files = ConfigFiles([config_dir()], verb, words)
        rows |= {group: files.choices(group) for group in files.groups if "@" not in group}
    lines = [f"| `{g}` | {', '.join(f'`{c}`' for c in choices)} |" for g, choices in sorted(rows.items())]
    return "\n".join(["| group | choices |", "|---|---|", *lines, ""])


def table(options: Iterable[OptionInfo]) -> str:
    lines = [f"| `{o.key}` | `{show(o.default)}` | {description(o)} |" for o in options]
    return "\n".join(["| option | default | description |", "|---|---|---|", *lines, ""])


def description(option: OptionInfo) -> str:
    """Return the description and what the option takes, as one cell of a table."""
    text = option.description[:1].upper() + option.description[1:]
    return f"{text}<br>*{option.takes}*".replace("|", "\\|")


def add_reports(reports: Iterable[str]) -> None:
    """Copy the reports, each "TITLE=FILE", into the site, and link them in its gallery."""
    links = []
    for number, report in enumerate(reports, start=1):
        title, _, file = report.partition("=")
        target = SITE / "reports" / f"{number}.html"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(file, target)
        links.append(f'<li><a href="reports/{number}.html">{html.escape(title)}</a></li>')
    gallery = SITE / "gallery.html"
    page = gallery.read_text(encoding="utf-8")
    place = "<!-- reports -->"
    assert place in page
    gallery.write_text(page.replace(place, f"<ul>{''.join(links)}</ul>" if links else ""), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reports", nargs="*", default=[], metavar="TITLE=FILE")
    arguments = parser.parse_args()
    OPTIONS_PAGE.write_text(options_page(), encoding="utf-8")
    built = subprocess.run([sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=ROOT)
    if built.returncode == 0:
        add_reports(arguments.reports)
    return built.returncode


if __name__ == "__main__":
    sys.exit(main())
