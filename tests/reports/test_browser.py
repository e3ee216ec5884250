"""The HTML reports in a real browser: nothing is cut, and what can be clicked or typed does what it says."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.support.wait import WebDriverWait

from detector.reports.run import RunReport

ENTER, ESCAPE, RIGHT = "\ue007", "\ue00c", "\ue014"


@pytest.fixture(params=["page", "run_page"])
def either(request: pytest.FixtureRequest) -> Path:
    path = request.getfixturevalue(request.param)
    assert isinstance(path, Path)
    return path


def opened(browser: Any, path: Path, *, width: int = 1280) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(path.as_uri())


@pytest.fixture
def printed(browser: Any) -> Iterator[None]:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    yield
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.fixture
def dark(browser: Any) -> Iterator[None]:
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    yield
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def text_of(browser: Any, selector: str) -> str:
    return str(browser.execute_script(f"return document.querySelector({selector!r}).innerText"))


def names(browser: Any) -> list[str]:
    shots = "document.querySelectorAll('[data-gallery] .shot .caption > span')"
    return [*browser.execute_script(f"return [...{shots}].map(e => e.textContent)")]


def choose(browser: Any, control: str, value: str) -> list[str]:
    """Set a control of the gallery, and return the names of the images that are left."""
    script = """const c = galleries[0][arguments[0]]; c.value = arguments[1];
    c.dispatchEvent(new Event(c.type === "search" ? "input" : "change"))"""
    browser.execute_script(script, control, value)
    return names(browser)


@pytest.mark.parametrize("width", [390, 1280])
def test_it_loads_whole_and_asks_nobody(browser: Any, either: Path, width: int) -> None:
    browser.get_log("performance")
    opened(browser, either, width=width)
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert requests
    assert {url.partition(":")[0] for url in requests} <= {"file", "data"}
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    charts = browser.execute_script(
        "return charts.map(c => [c.canvas.childElementCount,"
        " c.canvas.firstChild.getBoundingClientRect().right <= innerWidth])"
    )
    assert len(charts) >= 4
    assert all(drawn == [1, True] for drawn in charts)


def test_texts_of_a_chart_stay_inside_their_tile(browser: Any, either: Path) -> None:
    opened(browser, either, width=390)
    cut = browser.execute_script(
        "return [...document.querySelectorAll('.chart text')].filter(t => {"
        " const a = t.getBoundingClientRect(), b = t.closest('.tile').getBoundingClientRect();"
        " return a.left < b.left - 1 || a.right > b.right + 1; }).map(t => t.textContent)"
    )
    assert cut == []


def test_verdicts_and_notes_are_there_and_names_stay_text(browser: Any, page: Path) -> None:
    opened(browser, page)
    text = text_of(browser, "body")
    assert browser.title == "warp <script>: comparison"
    assert "0.5 <b>: good & new is better than regular with 1 seed and 30 images: AP" in text
    assert "a note" in text
    assert "oLRP" in text
    assert "123.4 / 234.5" in text
    assert browser.execute_script("return document.querySelectorAll('.verdict.better').length") == 2


def test_a_run_is_told_by_its_head(browser: Any, run_page: Path) -> None:
    opened(browser, run_page)
    assert browser.title == "FCOS on <data> & more"
    assert re.search(r"AP\n0\.\d{4}\nAP50\n0\.\d{4}", text_of(browser, "header"))
    assert "stopped <early>" in text_of(browser, "main")
    assert "detector train name='a b'" in text_of(browser, "dl.facts")
    assert "seed: 0" not in text_of(browser, "main")
    browser.execute_script("document.querySelector('details').open = true")
    assert "seed: 0" in text_of(browser, "main")


def test_tables_sort_by_a_click(browser: Any, page: Path) -> None:
    opened(browser, page)
    column = "const t = [...document.querySelectorAll('table')].find(t => t.innerText.startsWith('metric'));"
    values = f"{column} return [...t.tBodies[0].rows].map(r => parseFloat(r.cells[3].textContent))"
    before = browser.execute_script(values)
    for order in (True, False):
        browser.execute_script(f"{column} t.querySelectorAll('th button')[3].click()")
        assert browser.execute_script(values) == sorted(before, reverse=order)


def test_the_gallery_counts_what_ap_and_the_confusion_count(
    browser: Any, run_page: Path, report: RunReport
) -> None:
    opened(browser, run_page)
    right = sum(count for i, j, count in report.errors.confusion if i == j)
    objects = sum(curve.objects for curve in report.class_curves)
    tally = text_of(browser, ".tally")
    assert tally.startswith(f"{right} right, ")
    assert f", {objects - right} not found" in tally
    missed = "return galleries[0].outcomes.reduce((sum, [o]) => sum + o.missed.length, 0)"
    assert browser.execute_script(missed) == report.errors.counts_at_best["missed"]


def test_the_slider_moves_the_threshold_of_all_images(
    browser: Any, run_page: Path, report: RunReport
) -> None:
    opened(browser, run_page)
    assert report.gallery is not None
    sure = sum(score == 1 for score in report.gallery["models"][0]["score"])
    browser.execute_script("galleries[0].node.scrollIntoView()")
    kinds = (
        "return [...new Set([...document.querySelectorAll('.gallery .shot')].filter(s => s.near)"
        ".flatMap(s => [...s.querySelectorAll('.box')]).map(b => b.classList[1]))]"
    )
    WebDriverWait(browser, 30).until(lambda b: "wrong" in b.execute_script(kinds))
    browser.execute_script(
        "const r = galleries[0].range; r.value = 1;"
        "for (const kind of ['input', 'change']) r.dispatchEvent(new Event(kind))"
    )
    assert text_of(browser, ".tally").startswith(f"{sure} right, 0 wrong")
    assert set(browser.execute_script(kinds)) <= {"right", "missed"}
    browser.execute_script("document.querySelector('.controls button').click()")
    assert "wrong" in browser.execute_script(kinds)


def test_images_are_sorted_and_filtered(browser: Any, run_page: Path) -> None:
    opened(browser, run_page)
    assert len(names(browser)) == 30
    assert text_of(browser, "[role=status]") == "100 of 100 images"
    browser.execute_script("document.querySelector('.more').click()")
    f1 = "return galleries[0].list.map(i => galleries[0].outcomes[i][0].f1)"
    assert browser.execute_script(f1) == sorted(browser.execute_script(f1))
    assert choose(browser, "order", "name")[:3] == ["0 <i>.jpg", "1 <i>.jpg", "2 <i>.jpg"]
    assert choose(browser, "search", "77 ") == ["77 <i>.jpg"]
    choose(browser, "search", "")
    wrong = choose(browser, "kind", "1")
    assert 0 < len(wrong) < 100
    assert len(choose(browser, "one", "0")) <= len(wrong)
    clean = choose(browser, "kind", "clean")
    assert not {*clean} & {*wrong}


def test_the_keyboard_enlarges_and_goes_on(browser: Any, run_page: Path) -> None:
    opened(browser, run_page)
    first, second = names(browser)[:2]
    browser.execute_script("document.querySelector('[data-gallery] .shot').focus()")
    browser.switch_to.active_element.send_keys(ENTER)
    assert text_of(browser, "dialog strong").startswith(first)
    boxes = "return document.querySelectorAll('dialog .box').length"
    assert browser.execute_script(boxes) > 0
    assert "IoU" in text_of(browser, "dialog .side") or "nothing there" in text_of(browser, "dialog .side")
    browser.switch_to.active_element.send_keys("b")
    assert browser.execute_script(boxes) == 0
    browser.switch_to.active_element.send_keys(RIGHT)
    assert text_of(browser, "dialog strong").startswith(second)
    browser.switch_to.active_element.send_keys(ESCAPE)
    assert not browser.execute_script("return document.querySelector('dialog').open")
    assert browser.execute_script("return document.activeElement.className") == "shot"


def test_likely_label_errors_lead_to_their_image(browser: Any, run_page: Path, report: RunReport) -> None:
    opened(browser, run_page)
    assert report.gallery is not None
    for kind, suspects in report.gallery["suspects"].items():
        shots = f"return document.querySelectorAll('[data-suspects={kind}] .shot').length"
        assert browser.execute_script(shots) == len(suspects) > 0
    name = text_of(browser, "[data-suspects=unfound] .caption > span")
    browser.execute_script("document.querySelector('[data-suspects=unfound] .shot').click()")
    assert text_of(browser, "dialog strong").startswith(name)


def test_a_pair_of_models_is_shown_side_by_side(browser: Any, page: Path) -> None:
    opened(browser, page)
    assert (
        browser.execute_script("return document.querySelector('.shot').querySelectorAll('.pane').length") == 2
    )
    change = "return galleries[0].list.map(i => galleries[0].outcomes[i].map(o => o.f1))"
    pairs = browser.execute_script(change)
    assert pairs == sorted(pairs, key=lambda pair: pair[1] - pair[0])


def test_a_chart_tells_the_value_under_the_pointer(browser: Any, run_page: Path) -> None:
    opened(browser, run_page)
    tip = browser.execute_script(
        "const c = charts[0], a = c.canvas.firstChild.getBoundingClientRect(), p = c.points[0];"
        "const at = {clientX: a.left + p.x, clientY: a.top + p.y};"
        "c.node.dispatchEvent(new PointerEvent('pointermove', at));"
        "return c.tip.textContent"
    )
    assert tip == "step 10: 0.1"


def luminance(browser: Any, selector: str, style: str) -> float:
    color = browser.execute_script(f"return getComputedStyle(document.querySelector('{selector}')).{style}")
    return sum(map(int, re.findall(r"\d+", color)[:3])) / 3


@pytest.mark.usefixtures("dark")
def test_it_is_dark_where_the_reader_wants_it(browser: Any, either: Path) -> None:
    opened(browser, either)
    assert luminance(browser, "body", "backgroundColor") < 40
    assert luminance(browser, ".tile", "backgroundColor") < 50
    assert luminance(browser, "td", "color") > 200


@pytest.mark.usefixtures("printed")
def test_paper_loses_no_column_and_no_chart(browser: Any, either: Path) -> None:
    opened(browser, either, width=703)  # A4 without margins
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    cut = browser.execute_script(
        "return [...document.querySelectorAll('.wide, .chart')]"
        ".filter(w => w.scrollWidth > w.clientWidth + 1).map(w => w.innerText)"
    )
    assert cut == []
    style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    assert browser.execute_script(style, "nav", "display") == "none"
    assert browser.execute_script(style, "h2", "breakAfter") == "avoid"
    assert browser.execute_script(style, "figure.tile", "breakInside") == "avoid"
    assert luminance(browser, "body", "backgroundColor") == 255
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 14
