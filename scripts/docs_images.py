"""Writes the images of pages in docs/images from finished runs, with headless Chromium.

    python scripts/docs_images.py --run runs/train/fcos/TIME [--comparison runs/compare/deform/TIME]

`--run` is a run of `detector train` on the embedded data, `--comparison` one of `detector compare`. Without a
comparison, the image of a verdict is that of docs/results.md, with its figure.
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver

from detector import Predictor
from detector.drawings import draw_detections
from detector.predictor import load_image

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
VERDICT = (  # that of docs/results.md, whose figure is bccd.svg
    "deformable is better than regular with 3 seeds and 72 images: AP 0.415 against 0.395, +0.020 "
    "(95 % interval +0.005 to +0.035)."
)
STYLE = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0; padding: 24px; width: 1232px; display: flex; gap: 28px; align-items: center;
  background: #fff; font: 21px/1.45 system-ui, "DejaVu Sans", sans-serif; color: #222 }
.detections { flex: 0 0 506px } .verdict { flex: 1 } img { width: 100%; display: block }
code { display: block; margin-bottom: 14px; color: #555 }
p { margin: 0 0 14px; padding-left: 14px; border-left: 5px solid #0072b2 }
</style>"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--comparison", type=Path)
    parser.add_argument("--photos", type=Path, default=Path("data/warped_shapes/images/val"))
    arguments = parser.parse_args()
    photos = sorted(arguments.photos.iterdir())
    save(detections_of(arguments.run, photos, rows=2, columns=4), "detections")
    browser = start_browser()
    save(screen(browser, arguments.run / "report.html"), "report")
    save(screen(browser, arguments.run / "report.html", part="images"), "report_images")
    if arguments.comparison is None:
        save(rendered(browser, verdict(""), height=790), "verdict")
    else:
        save(screen(browser, arguments.comparison / "report.html"), "verdict")
    save(overview(browser, detections_of(arguments.run, photos, rows=2, columns=2)), "overview")
    browser.quit()


def detections_of(run: Path, photos: list[Path], *, rows: int, columns: int) -> Image.Image:
    """Return a grid of images with what the run's best checkpoint detects in them."""
    predictor = Predictor(run / "checkpoints" / "best.ckpt")
    side, gap = 250, 6
    grid = Image.new("RGB", (columns * (side + gap) - gap, rows * (side + gap) - gap), "white")
    for number, photo in enumerate(photos[: rows * columns]):
        image = load_image(photo, predictor.reading)
        detections = predictor.predict(image, score_threshold=0.5)
        drawing = draw_detections(image, detections, class_names=predictor.class_names)
        corner = (number % columns * (side + gap), number // columns * (side + gap))
        grid.paste(drawing.resize((side, side), Image.Resampling.LANCZOS), corner)
    return grid


def overview(browser: Any, detections: Image.Image) -> Image.Image:
    """Return the image of the README: detections, and a verdict with its figure."""
    file = io.BytesIO()
    detections.save(file, format="PNG")
    address = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    left = f'<div class="detections"><code>detector predict</code><img src="{address}"></div>'
    return rendered(browser, left + verdict("<code>detector compare</code>"), height=594)


def verdict(title: str) -> str:
    """Return the verdict of docs/results.md with its figure as HTML."""
    figure = (IMAGES / "bccd.svg").as_uri()
    return f'<div class="verdict">{title}<p>{VERDICT}</p><img src="{figure}"></div>'


def rendered(browser: Any, body: str, *, height: int) -> Image.Image:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(STYLE + body, encoding="utf-8")
        return screenshot(browser, path, width=1280, height=height)


def start_browser() -> Any:
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or ""
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def screen(browser: Any, page: Path, *, part: str = "") -> Image.Image:
    return screenshot(browser, page, width=1280, height=1000, part=part)


def screenshot(browser: Any, page: Path, *, width: int, height: int, part: str = "") -> Image.Image:
    """Return what a browser of this size shows of the page, from the part with this id on."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"{page.absolute().as_uri()}#{part}")
    time.sleep(1)  # what scripts draw
    return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")


def save(image: Image.Image, name: str) -> None:
    image.save(IMAGES / f"{name}.webp", quality=70, method=6)


if __name__ == "__main__":
    main()
