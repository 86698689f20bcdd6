"""The HTML report: what it says, what it must not let through, and how it works in a browser."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from restore.errors import DataError
from restore.reports.page.page import ImageViews, Page, render, write_page
from restore.reports.records import ImageRow, summarise

WIDTH, HEIGHT = 96, 64
COLOURS = {"lq": (40, 40, 200), "baseline": (40, 160, 160), "restored": (60, 180, 60)}  # BGR


def row(image: str, psnr: float, *, set_name: str = "Set5", input_psnr: float = 30.0) -> ImageRow:
    return ImageRow(
        set=set_name, image=image, protocol="sr-y", border=2, psnr=psnr, ssim=0.9,
        input_psnr=input_psnr, input_ssim=0.8, width=WIDTH, height=HEIGHT, seconds=0.1,
        network="SPAN", weights_sha256="ab" * 32, commit="0123abc",
    )  # fmt: skip


def view(image: str, *, set_name: str = "Set5", target: bool = True) -> ImageViews:
    stem = f"images/{Path(image).stem}"
    return ImageViews(
        set=set_name, image=image, lq=f"{stem}_lq.png", baseline=f"{stem}_baseline.png",
        restored=f"{stem}_restored.png", target=f"{stem}_target.png" if target else None,
        width=WIDTH, height=HEIGHT, zoom=(8, 8, 16, 12),
    )  # fmt: skip


def page(rows: list[ImageRow], views: list[ImageViews], baseline: str = "bicubic") -> Page:
    facts = [("network", "SPAN ×2"), ("weights sha256", "ab" * 32), ("paper", "https://a.b/c")]
    return Page("SPAN on Set5", facts, summarise(rows), rows, views, baseline)


class Elements(HTMLParser):
    """The (tag, attributes) of a page in their order, and the text inside its script elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script" and data.strip():
            self.scripts.append(data)


def names_in_order(html: str) -> list[str]:
    return [unescape(name) for name in re.findall(r'<th scope="row" data-key="([^"]*)"', html)]


def cells_of(html: str, name: str) -> list[str]:
    line = next(part for part in html.split("<tr") if f'data-key="{name}"' in part)
    return re.findall(r"<span>([^<]*)</span>", line)


def views_in(html: str) -> list[dict]:
    return json.loads(Elements(html).scripts[0])


def test_file_is_written_whole_into_a_new_folder(tmp_path):
    path = write_page(tmp_path / "run" / "report", page([row("a.png", 31)], [view("a.png")]))
    assert path == tmp_path / "run" / "report" / "index.html"
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]


def test_hostile_names_stay_text():
    name, set_name = "<script>alert(1)</script>.png", "\"Set\" 'x' onload=alert(1) </script>"
    hostile = replace(view(name, set_name=set_name), lq="a</script>.png", restored="x?y#z%20.png")
    html = render(page([row(name, 31, set_name=set_name)], [hostile], baseline="<b>"))
    elements = Elements(html)
    assert "<script>alert" not in html and "<b>alert" not in html
    assert sum(tag == "script" for tag, _ in elements.found) == 2
    assert not any("onload" in attributes for _, attributes in elements.found)
    assert names_in_order(html) == [name]
    data = views_in(html)[0]
    assert (data["image"], data["set"]) == (name, set_name)
    assert data["files"]["restored"] == "x%3Fy%23z%2520.png"


def test_names_that_are_no_unicode_can_be_written(tmp_path):
    odd = replace(view("a.png"), image="a\udcff.png", restored="a\udcff.png")
    html = write_page(tmp_path, page([], [odd])).read_text(encoding="utf-8")
    assert views_in(html)[0]["files"]["restored"] == "a%FF.png"


@pytest.mark.parametrize("path", ["", "/etc/a.png", "//host/a.png"])
def test_a_file_away_from_the_page_is_refused(path):
    with pytest.raises(DataError, match="relative to the report's folder"):
        render(page([], [replace(view("a.png"), baseline=path)]))


def test_infinite_and_unknown_figures():
    rows = [row("inf.png", math.inf), row("nan.png", math.nan), row("worse.png", 29.5)]
    html = render(page(rows, [view(r.image) for r in rows]))
    assert cells_of(html, "inf.png") == ["∞", "0.9000", "30.00", "0.8000", "+∞"]
    assert cells_of(html, "nan.png") == ["–", "0.9000", "30.00", "0.8000", "–"]
    assert cells_of(html, "worse.png") == ["29.50", "0.9000", "30.00", "0.8000", "−0.50"]
    assert not re.search(r"\b(nan|inf|NaN)\b(?!\.png)", re.sub(r"(?s)<script>.*", "", html))


def test_a_gain_that_rounds_to_nothing_has_no_sign():
    html = render(page([row("a.png", 29.999), row("b.png", 30.001)], []))
    assert cells_of(html, "a.png")[-1] == cells_of(html, "b.png")[-1] == "0.00"


def test_rows_are_sorted_by_gain_and_unknown_comes_last():
    psnr = {"b.png": 31, "nan.png": math.nan, "c.png": 29, "inf.png": math.inf, "a.png": 32}
    rows = [row(name, value) for name, value in psnr.items()]
    html = render(page(rows, []))
    assert names_in_order(html) == ["inf.png", "a.png", "b.png", "c.png", "nan.png"]
    assert html.count("number best") == 1 + (not math.isnan(summarise(rows)[0].gain))
    assert html.count("number worse") == 1


def test_without_a_target_there_are_no_figures_and_no_target():
    rows = [row("seen.png", 31), row("wild.png", 55, set_name="Wild")]
    wild = view("wild.png", set_name="Wild", target=False)
    html = render(page(rows, [view("seen.png"), wild]))
    assert cells_of(html, "wild.png") == ["–"] * 5
    assert "55.00" not in html
    data = views_in(html)[1]
    assert data["files"]["target"] is None and data["notes"] == {}


def test_an_image_without_a_row_can_still_be_seen():
    html = render(page([row("a.png", 31)], [view("a.png"), view("b.png")]))
    assert names_in_order(html) == ["a.png", "b.png"]
    assert html.count("<tr data-view=") == 2


def test_an_input_that_is_its_own_baseline_is_shown_once():
    same = replace(view("a.png"), lq="images/a_baseline.png")
    files = views_in(render(page([row("a.png", 31)], [same], baseline="input")))[0]["files"]
    assert files["lq"] is None and files["baseline"] == "images/a_baseline.png"


def test_nothing_is_fetched_from_elsewhere():
    html = render(page([row("a.png", 31)], [view("a.png")]))
    for _, attributes in Elements(html).found:
        assert not {"href", "srcset", "action"} & attributes.keys()
        assert "src" not in attributes
    assert "url(" not in html and "@import" not in html
    assert "http://" not in html
    assert html.count("https://") == 1  # the fact, as text
    assert "default-src 'none'" in html


def test_protocol_and_facts_are_named():
    html = render(page([row("a.png", 31)], []))
    assert "sr-y" in html and "ab" * 32 in html and "<title>SPAN on Set5</title>" in html


@pytest.fixture
def report(tmp_path) -> Path:
    """A page with three images, two with a target; each layer has one colour and a white mark."""
    rng = np.random.default_rng(0)
    views = [view("a b#1.png"), view("b.png"), view("c.png", target=False)]
    (tmp_path / "images").mkdir()
    for one in views:
        for layer, colour in COLOURS.items():
            size = (HEIGHT // 2, WIDTH // 2, 3) if layer == "lq" else (HEIGHT, WIDTH, 3)
            cv2.imwrite(str(tmp_path / getattr(one, layer)), np.full(size, colour, np.uint8))
        if one.target:
            noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            cv2.imwrite(str(tmp_path / one.target), noise)
    rows = [row("a b#1.png", 32), row("b.png", 29)]
    return write_page(tmp_path, page(rows, views))


@pytest.fixture
def browser():
    """A headless Chromium or Chrome of this machine."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as run:
        instance = run.chromium.launch(executable_path=program, args=switches)
        yield instance
        instance.close()


def colour_at(locator, x: float, y: float) -> tuple[int, ...]:
    """BGR of what is seen at a place of an element; x, y in 0..1."""
    seen = cv2.imdecode(np.frombuffer(locator.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    return tuple(int(c) for c in seen[int(y * seen.shape[0]), int(x * seen.shape[1])])


def wait_until(tab, expression: str, seconds: float = 10) -> None:
    """Playwright's own wait evaluates text inside the page, which the content policy forbids."""
    end = time.monotonic() + seconds
    while not tab.evaluate(expression):
        assert time.monotonic() < end, f"still not so: {expression}"
        tab.wait_for_timeout(20)


@pytest.mark.browser
def test_in_a_browser(report, browser):
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    troubles: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda m: troubles.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("requestfailed", lambda request: troubles.append(request.url))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(report.as_uri())
    loaded = "() => [...document.querySelectorAll('#picture img:not([hidden])')]" + (
        ".every(image => image.complete && image.naturalWidth)"
    )
    wait_until(tab, loaded)
    names = "() => [...document.querySelectorAll('#images tbody th button')].map(b => b.innerText)"
    slider, picture, where = (tab.locator(f"#{name}") for name in ("slider", "picture", "where"))

    def cut() -> str:
        return tab.eval_on_selector("#picture img.left", "e => getComputedStyle(e).clipPath")

    def now() -> int:
        return int(slider.get_attribute("aria-valuenow"))

    # The image with the largest gain is open; left is the baseline, right the restored one.
    assert tab.locator("#viewer-name").inner_text() == "a b#1.png"
    assert tab.evaluate(names) == ["a b#1.png", "b.png", "c.png"]
    assert colour_at(picture, 0.25, 0.9) == COLOURS["baseline"]
    assert colour_at(picture, 0.9, 0.9) == COLOURS["restored"]
    canvases = tab.locator("#crops canvas")
    assert canvases.count() == 4
    for layer, colour in COLOURS.items():
        assert colour_at(tab.locator(f"figure[data-layer={layer}] canvas"), 0.5, 0.5) == colour

    # Headers sort, unknown figures stay last, the keyboard works too.
    gain = tab.locator("#images thead th", has_text="Gain")
    assert gain.get_attribute("aria-sort") == "descending"
    gain.click()
    assert gain.get_attribute("aria-sort") == "ascending"
    assert tab.evaluate(names) == ["b.png", "a b#1.png", "c.png"]
    tab.locator("#images thead th button", has_text="Image").focus()
    tab.keyboard.press("Enter")
    assert tab.evaluate(names) == ["a b#1.png", "b.png", "c.png"]
    tab.keyboard.press("Enter")
    assert tab.evaluate(names) == ["c.png", "b.png", "a b#1.png"]
    assert gain.get_attribute("aria-sort") is None

    # The slider follows mouse and keys, and moving it leaves the enlarged region alone.
    picture.scroll_into_view_if_needed()
    before, region, box = cut(), where.inner_text(), picture.bounding_box()
    assert now() == 50
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.75)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.75, steps=4)
    tab.mouse.up()
    assert now() == 20 and cut() != before
    assert colour_at(picture, 0.25, 0.9) == COLOURS["restored"]
    for key, value in (("ArrowRight", 21), ("ArrowLeft", 20), ("PageUp", 30), ("End", 100)):
        slider.press(key)
        assert now() == value
    slider.press("Home")
    assert now() == 0
    assert where.inner_text() == region

    # Layers can be chosen on both sides; the same one on both sides shows whole.
    tab.locator("input[name=right][value=lq]").check()
    assert colour_at(picture, 0.9, 0.9) == COLOURS["lq"]
    slider.press("End")
    tab.locator("input[name=left][value=restored]").check()
    assert colour_at(picture, 0.9, 0.9) == COLOURS["restored"]
    slider.press("Home")
    tab.locator("input[name=left][value=lq]").check()
    assert colour_at(picture, 0.3, 0.9) == COLOURS["lq"]

    # The enlarged region follows a click and the arrow keys, and stays inside the picture.
    crop = tab.locator("figure[data-layer=target] canvas")
    seen = crop.screenshot()
    picture.click(position={"x": box["width"] * 0.5, "y": box["height"] * 0.5})
    assert where.inner_text().startswith("x 40, y 26, 16 × 12 px")
    assert crop.screenshot() != seen
    picture.press("ArrowRight")
    picture.press("Shift+ArrowUp")
    assert where.inner_text().startswith("x 42, y 25,")
    picture.click(position={"x": box["width"] - 2, "y": box["height"] - 2})
    assert where.inner_text().startswith(f"x {WIDTH - 16}, y {HEIGHT - 12},")

    # A row opens its image; without a target the GT views are gone.
    tab.locator("input[name=right][value=target]").check()
    tab.locator("#images tbody tr", has_text="c.png").click()
    wait_until(tab, loaded)
    assert tab.locator("#viewer-name").inner_text() == "c.png"
    assert tab.locator("#crops figure:visible").count() == 3
    assert tab.locator("input[name=right]:checked").get_attribute("value") == "restored"
    assert tab.locator("[data-layer=target]:visible").count() == 0
    tab.locator("#next").click()
    assert tab.locator("#viewer-name").inner_text() == "b.png"

    # A phone has no sideways scrolling.
    tab.set_viewport_size({"width": 360, "height": 780})
    wait_until(tab, "document.documentElement.scrollWidth <= innerWidth")

    wait_until(tab, loaded)
    assert troubles == []
    assert asked and all(url.startswith(report.parent.as_uri()) for url in asked)
