"""The findings of a comparison, in words, tables and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rich.console import Console

from detector.evaluation.metrics import MONITORED
from detector.evaluation.statistics import Comparison, Difference
from detector.files import write_json, write_text_atomically
from detector.reports.costs import ap_per_ms, cost_tables
from detector.reports.errors import error_header, error_rows
from detector.reports.gallery import Changes
from detector.reports.study import Condition, Study
from detector.reports.tables import print_table, signed
from detector.run_folder import RunFolder

METRIC_HEADER = ("metric", "a", "b", "b - a", "95 % interval", "p")
_MANY_CLASSES = 20
_TWO_SEEDS = "With two seeds the interval is somewhat too narrow: three tell more surely."
CLASS_DIFFERENCE_HEADER = ("class", "AP a", "AP b", "b - a", "95 % interval", "p (Holm)")


def verdict(
    comparison: Comparison, *, a: str, b: str, is_trained: bool = True, metric: str = MONITORED.name
) -> str:
    """Say whether b is better than a, in a sentence or two that claim no more than the data show.

    `metric` is the name of the one that decides.
    """
    if comparison.identical:
        return f"{b} and {a} have identical predictions: there is nothing to tell apart."
    ap = comparison.decisive
    if ap is None:
        return f"{b} and {a} cannot be compared: fewer than 5 images have objects."
    seeds, images = comparison.num_seeds, comparison.num_images
    basis = f"{seeds} seed{'s' * (seeds > 1)} and {images} images"
    claim = f"{_direction(comparison)} than" if comparison.is_real else "not distinguishable from"
    p = (
        f"; p {comparison.verdict_p:.3f} for {comparison.num_variants} variants"
        if comparison.num_variants > 1
        else ""
    )
    claim = (
        f"{b} is {claim} {a} with {basis}: {metric} {ap.b:.3f} against {ap.a:.3f}, {signed(ap.delta)} "
        f"(95 % interval {interval(ap)}{p})."
    )
    return " ".join(filter(None, [claim, _advice(comparison, ap, is_trained=is_trained)]))


def _direction(comparison: Comparison) -> Literal["better", "worse"]:
    return "better" if comparison.is_better else "worse"


def _advice(comparison: Comparison, ap: Difference, *, is_trained: bool) -> str:
    narrow = _TWO_SEEDS if comparison.num_seeds == 2 else ""
    return " ".join(filter(None, [narrow, _what_would_help(comparison, ap, is_trained=is_trained)]))


def _what_would_help(comparison: Comparison, ap: Difference, *, is_trained: bool) -> str:
    if ap.detects_nothing and comparison.decided_by.higher_is_better:
        return "Neither model detects anything yet: train longer."
    if ap.leaves_out_zero and not comparison.is_real:
        others = f"of {comparison.num_variants} variants, one may seem so by chance"
        return f"Alone it would be {_direction(comparison)}; {others}."
    if comparison.num_seeds == 1 and not is_trained:
        return "One results file of each: the interval is of image noise alone."
    if comparison.num_seeds == 1:
        return "One seed: the interval is of image noise alone, another seed may differ by more."
    if comparison.is_real or ap.is_nothing:
        return ""
    if comparison.seeds_needed is None:
        return "No number of seeds would tell a difference of this size: it takes more images."
    about = "Very roughly" if comparison.num_seeds == 2 else "About"
    return f"{about} {comparison.seeds_needed} seeds would tell a difference of this size."


def interval(difference: Difference) -> str:
    return f"{signed(difference.low)} to {signed(difference.high)}"


def difference_rows(differences: Mapping[str, Difference]) -> list[tuple[str, ...]]:
    return [
        (name, f"{d.a:.3f}", f"{d.b:.3f}", signed(d.delta), interval(d), f"{d.p_value:.3f}")
        for name, d in differences.items()
    ]


def clearest_classes(classes: Mapping[str, Difference]) -> dict[str, Difference]:
    """Return the classes to show first: all, or the 20 with the least p-values if many; order is kept."""
    if len(classes) <= _MANY_CLASSES:
        return dict(classes)
    clearest = set(sorted(classes, key=lambda name: classes[name].p_value)[:_MANY_CLASSES])
    return {name: difference for name, difference in classes.items() if name in clearest}


def print_study(study: Study, *, console: Console | None = None) -> None:
    """Print the tables, then the verdicts that rest on them."""
    console = console or Console()
    for condition in study.conditions:
        for variant in condition.comparisons:
            for noun, comparison in condition.by_task(variant):
                where = ", ".join(filter(None, [condition.name, noun]))
                title = (
                    f"{where}: " * bool(where) + f"a = {condition.baseline}, b = {variant}{means(comparison)}"
                )
                print_table(title, METRIC_HEADER, difference_rows(comparison.metrics), console=console)
        for table in cost_tables(condition):
            print_table(table.title, table.header, table.rows, console=console)
    for line in _lines(study):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def verdicts(study: Study) -> list[tuple[Literal["better", "worse", ""], str]]:
    """Return the verdict on each variant under each condition, with "better" or "worse" where it is clear."""
    entries: list[tuple[Literal["better", "worse", ""], str]] = []
    for condition in study.conditions:
        where = f"{condition.name}: " if condition.name else ""
        for variant, comparison in condition.comparisons.items():
            kind: Literal["better", "worse", ""] = ""
            if comparison.is_real:
                kind = _direction(comparison)
            entries.append((kind, where + condition_verdict(condition, variant)))
    return entries


def condition_verdict(condition: Condition, variant: str) -> str:
    """Return the verdict on a variant under a condition."""
    comparison = condition.comparisons[variant]
    return verdict(
        comparison,
        a=condition.baseline,
        b=variant,
        is_trained=condition.is_trained,
        metric=condition.metric,
    )


def means(comparison: Comparison) -> str:
    """Return the part of a title that says how many seeds are averaged; empty for a single seed."""
    return f", means of {comparison.num_seeds} seeds" if comparison.num_seeds > 1 else ""


def _lines(study: Study) -> list[str]:
    notes = [f"note: {note}" for condition in study.conditions for note in condition.notes]
    return [text for _, text in verdicts(study)] + notes


def write_study(study: Study, folder: Path, *, changes: Sequence[Changes] = ()) -> None:
    """Write comparison.json with every number, and report.md to read."""
    content = asdict(study)
    content["changed_images"] = [
        {
            "condition": change.condition,
            "a": change.a,
            "b": change.b,
            "runs": change.runs,
            "gained": [{"image": one.image, "f1": one.f1} for one in change.gained],
            "lost": [{"image": one.image, "f1": one.f1} for one in change.lost],
        }
        for change in changes
    ]
    for condition, written in zip(study.conditions, content["conditions"], strict=True):
        for variant in condition.comparisons:
            written["comparisons"][variant]["verdict"] = condition_verdict(condition, variant)
        written["ap_per_ms"] = ap_per_ms(condition)
    files = RunFolder(folder)
    write_json(files.comparison, content)
    write_text_atomically(files.summary, markdown(study))


def markdown(study: Study) -> str:
    lines = [f"# Comparison: {study.name}", "", *(f"{line}\n" for line in _lines(study))]
    for condition in study.conditions:
        for variant, comparison in condition.comparisons.items():
            where = f"{condition.name}: " if condition.name else ""
            lines += [f"## {where}{variant} (b) against {condition.baseline} (a){means(comparison)}", ""]
            for noun, by_task in condition.by_task(variant):
                lines += [f"### {noun.capitalize()}", ""] if noun else []
                lines += _table(METRIC_HEADER, difference_rows(by_task.metrics))
                lines += _table(CLASS_DIFFERENCE_HEADER, difference_rows(by_task.classes))
            lines += [method(comparison), ""]
        for table in cost_tables(condition):
            lines += [f"### {table.title}", "", *_table(table.header, table.rows)]
        if condition.errors:
            of = f" ({condition.errors_of})" if condition.errors_of else ""
            lines += [
                f"### Errors{of}",
                "",
                *_table(error_header(condition.errors), error_rows(condition.errors, condition.task)),
            ]
    return "\n".join(lines).rstrip() + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def row(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return [row(header), row(["---", *["---:"] * (len(header) - 1)]), *map(row, rows), ""]


def method(comparison: Comparison) -> str:
    return " ".join(filter(None, [_interval_method(comparison), _classes_left_out(comparison)]))


def _classes_left_out(comparison: Comparison) -> str:
    count, of_all = comparison.num_classes - len(comparison.classes), comparison.num_classes
    return f"{count} of {of_all} classes without an interval: too few images hold them." if count else ""


def _interval_method(comparison: Comparison) -> str:
    seeds = comparison.num_seeds
    if seeds == 1:
        return "Interval: paired bootstrap over images; one seed, so image noise alone."
    deltas = ", ".join(map(signed, comparison.seed_deltas))
    return (
        f"Interval: paired bootstrap over images, crossed with {seeds} seeds (t distribution). "
        f"{comparison.decided_by.label} difference of each seed: {deltas}; sign-flip test over seeds: "
        f"p = {comparison.sign_flip_p:.3f}."
    )
