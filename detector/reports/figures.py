"""Figures of a comparison, as SVG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from detector.drawings import class_colour
from detector.evaluation.statistics import Difference
from detector.reports.study import Condition, Curve, Losses, Study
from detector.reports.tables import signed

_WIDTH_IN = 6.0  # a phone shows it at 0.6 of this size
_LONGEST_NAME = 28
# Names are not formulas. Text stays text: the browser has glyphs that a font on this machine may lack.
_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "detector",
}

_P = ParamSpec("_P")
_T = TypeVar("_T")


def in_style(make: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorate a plotting function so that equal numbers give equal files, and names may be any text."""

    @wraps(make)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with matplotlib.rc_context(_STYLE):
            return make(*args, **kwargs)

    return drawn


def short(name: str) -> str:
    """Shorten a name for an axis or a legend, where a very long one would leave no room for the plot."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


@in_style
def differences_figure(conditions: Sequence[Condition]) -> str:
    """Plot the AP difference of each variant with its interval, and zero."""
    rows = [
        (f"{condition.name}: {variant}" if condition.name else variant, found.metrics["AP"], found.is_real)
        for condition in conditions
        for variant, found in condition.comparisons.items()
        if "AP" in found.metrics
    ]
    figure = new_figure(height_in=0.7 + 0.42 * max(1, len(rows)))
    axes = figure.subplots()
    for place, (_, ap, is_real) in enumerate(rows):
        colour = "#57606a" if not is_real else "#1a7f37" if ap.delta > 0 else "#b42318"
        axes.plot(
            [ap.low, ap.high], [place, place], color=colour, linewidth=5, solid_capstyle="round", alpha=0.45
        )
        axes.plot([ap.delta], [place], "o", color=colour)
        axes.annotate(signed(ap.delta), (ap.delta, place), (0, 8), textcoords="offset points", ha="center")
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [short(name) for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.75)
    seeds = {found.num_seeds for condition in conditions for found in condition.comparisons.values()}
    of = f", mean of {' or '.join(map(str, sorted(seeds)))} seeds" if max(seeds, default=1) > 1 else ""
    axes.set_xlabel(f"difference in AP{of}, 95 % interval")
    return as_svg(figure)


@in_style
def curves_figure(condition: Condition) -> str | None:
    """Plot validation AP against images seen, runs thin, the mean of a variant thick; None without runs."""
    if not condition.curves:
        return None
    figure = new_figure(height_in=3.2)
    axes = figure.subplots()
    for number, (variant, by_seed) in enumerate(condition.curves.items()):
        colour = variant_colour(number)
        by_images: dict[int, list[float]] = {}
        for curve in by_seed.values():
            known = [(n, ap) for n, ap in zip(curve.images_seen, curve.ap, strict=True) if ap is not None]
            axes.plot(*zip(*known, strict=True), color=colour, linewidth=0.8, alpha=0.5)
            for images, ap in known:
                by_images.setdefault(images, []).append(ap)
        means = sorted((images, sum(aps) / len(aps)) for images, aps in by_images.items())
        axes.plot(
            *zip(*means, strict=True),
            color=colour,
            linewidth=2.2,
            marker="o",
            markersize=3,
            label=short(variant),
        )
    axes.set_xlabel("images seen")
    if any(len(by_seed) > 1 for by_seed in condition.curves.values()):
        axes.set_title("each seed thin, the mean of a variant thick", fontsize="small")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylabel("AP on the validation images")
    axes.legend(frameon=False)
    return as_svg(figure)


@in_style
def run_figure(curve: Curve) -> str:
    """Plot the validation AP of one run against epochs."""
    figure = new_figure(height_in=2.8)
    axes = figure.subplots()
    known = [(e, ap) for e, ap in zip(curve.epochs, curve.ap, strict=True) if ap is not None]
    axes.plot(*zip(*known, strict=True), color=variant_colour(0), marker="o", markersize=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="AP on the validation images")
    return as_svg(figure)


@in_style
def losses_figure(losses: Losses) -> str:
    """Plot the training and validation losses, terms thin, and the learning rate against epochs."""
    figure = new_figure(height_in=3.4)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    terms = [name for name in losses.train if name != "loss"]
    for style, of_stage, stage in (("-", losses.train, "training"), ("--", losses.val, "validation")):
        for name, values in of_stage.items():
            known = [(e, v) for e, v in zip(losses.epochs, values, strict=True) if v is not None]
            is_total = name == "loss"
            colour = "black" if is_total else variant_colour(terms.index(name)) if name in terms else "gray"
            label = stage if is_total else name if stage == "training" else None
            marker = "o" if len(known) == 1 else None
            width = 2.0 if is_total else 0.8
            left.plot(
                *zip(*known, strict=True),
                style,
                color=colour,
                linewidth=width,
                marker=marker,
                markersize=3,
                label=label,
            )
    left.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=3, frameon=False, fontsize="small")
    right.plot(losses.epochs, losses.lr, color=variant_colour(0), marker="o", markersize=3)
    right.set(xlabel="epoch", ylabel="learning rate", ylim=(0, None))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return as_svg(figure)


@in_style
def conditions_figure(study: Study) -> str | None:
    """Plot AP of each variant by condition, with intervals of differences; None for a single condition."""
    if len(study.conditions) < 2:
        return None
    figure = new_figure(height_in=3.6)
    axes = figure.subplots()
    place = {condition.name: number for number, condition in enumerate(study.conditions)}
    first = [(place[p.name], ap.a) for p in study.conditions for ap in _ap(p, next(iter(p.comparisons)))]
    axes.plot(
        *zip(*first, strict=True),
        marker="o",
        color=variant_colour(0),
        label=short(study.conditions[0].baseline),
    )
    variants = dict.fromkeys(variant for condition in study.conditions for variant in condition.comparisons)
    for number, variant in enumerate(variants, start=1):
        found = [
            (place[p.name], ap.b, (ap.high - ap.low) / 2) for p in study.conditions for ap in _ap(p, variant)
        ]
        if found:
            x, y, half = zip(*found, strict=True)
            axes.errorbar(
                x, y, half, marker="o", capsize=3, color=variant_colour(number), label=short(variant)
            )
    axes.set_xticks(range(len(place)), [short(name) for name in place])
    axes.set_xlabel(short(study.name))
    axes.set_ylabel("AP")
    axes.legend(frameon=False, title="bars: interval of the difference")
    return as_svg(figure)


def _ap(condition: Condition, variant: str) -> list[Difference]:
    """Return the difference of AP, if any: a variant may have failed, a condition may have no object."""
    found = condition.comparisons.get(variant)
    return [found.metrics["AP"]] if found and "AP" in found.metrics else []


def variant_colour(number: int) -> tuple[float, float, float]:
    red, green, blue = class_colour(number)
    return 0.8 * red / 255, 0.8 * green / 255, 0.8 * blue / 255


def new_figure(*, height_in: float) -> Figure:
    return Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")


def as_svg(figure: Figure, *, grid: bool = True) -> str:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        if grid:
            axes.grid(alpha=0.25)
    text = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the font here only measures the text
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
