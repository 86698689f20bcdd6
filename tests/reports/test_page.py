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
from restore.reports.comparison import Contender, Quoted
from restore.reports.curves import Series, read_curves
from restore.reports.page.page import ImageViews, Page, render, write_page
from restore.reports.page.tables import difference_lines
from restore.reports.records import ImageRow

WIDTH, HEIGHT = 96, 64
COLOURS = {"lq": (40, 40, 200), "baseline": (40, 160, 160), "r0": (60, 180, 60)}  # BGR
MAIR = (200, 90, 20)


def row(image: str, psnr: float, *, set_name: str = "Set5", input_psnr: float = 30.0) -> ImageRow:
    return ImageRow(
        set=set_name, image=image, protocol="sr-y", border=2, psnr=psnr, ssim=0.9,
        input_psnr=input_psnr, input_ssim=0.8, width=WIDTH, height=HEIGHT, seconds=0.1,
        network="SPAN", weights_sha256="ab" * 32, commit="0123abc",
    )  # fmt: skip


def view(
    image: str, *, set_name: str = "Set5", target: bool = True, who: tuple[str, ...] = ("SPAN",)
) -> ImageViews:
    stem = f"images/{Path(image).stem}"
    return ImageViews(
        set=set_name, image=image, lq=f"{stem}_lq.png", baseline=f"{stem}_baseline.png",
        restored={name: f"{stem}_{name}.png" for name in who},
        target=f"{stem}_target.png" if target else None, thumb=f"{stem}_thumb.jpg",
        width=WIDTH, height=HEIGHT, zoom=(8, 8, 16, 12),
    )  # fmt: skip


FACTS = [("network", "SPAN ×2"), ("weights sha256", "ab" * 32), ("paper", "https://a.b/c")]


def page(rows: list[ImageRow], views: list[ImageViews], baseline: str = "bicubic") -> Page:
    contenders = [Contender("SPAN", 498_208, rows)]
    return Page("SPAN on Set5", FACTS, contenders, baseline, views)


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


def table_of(html: str, start: str) -> str:
    return html[html.index(start) :].partition("</table>")[0]


def names_in_order(html: str) -> list[str]:
    """Of the table of images."""
    table = table_of(html, '<table id="images">')
    return [unescape(name) for name in re.findall(r'<th scope="row" data-key="([^"]*)"', table)]


def cells_of(html: str, name: str) -> list[str]:
    """PSNR and SSIM of the baseline and of each network, and the gain."""
    table = table_of(html, '<table id="images">')
    line = next(part for part in table.split("<tr") if f'data-key="{name}"' in part)
    return re.findall(r"<span[^>]*>([^<]*)</span>", line)


def views_in(html: str) -> list[dict]:
    return json.loads(Elements(html).scripts[0])


def test_file_is_written_whole_into_a_new_folder(tmp_path):
    path = write_page(tmp_path / "run" / "report", page([row("a.png", 31)], [view("a.png")]))
    assert path == tmp_path / "run" / "report" / "index.html"
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]


def test_hostile_names_stay_text():
    name, set_name = "<script>alert(1)</script>.png", "\"Set\" 'x' onload=alert(1) </script>"
    who = "</script><img src=x onerror=alert(1)>"
    rows = [row(name, 31, set_name=set_name)]
    restored = {who: "x?y#z%20.png"}
    hostile = replace(view(name, set_name=set_name), lq="a</script>.png", restored=restored)
    curves = [Series(who, f"val/{set_name}/psnr", (0, 1), (30, 31))]
    html = render(
        Page(name, [(name, name)], [Contender(who, 1, rows), Contender("B", 2, rows)], "<b>",
             [hostile], [Quoted(who, "sr-y", set_name, {set_name: (1, 0.5)})], curves, [who])
    )  # fmt: skip
    elements = Elements(html)
    assert "<script>alert" not in html and "<b>alert" not in html
    assert sum(tag == "script" for tag, _ in elements.found) == 2
    assert not any({"onload", "onerror"} & attributes.keys() for _, attributes in elements.found)
    assert names_in_order(html) == [name]
    data = views_in(html)[0]
    assert (data["image"], data["set"]) == (name, set_name)
    assert data["files"]["r0"] == "x%3Fy%23z%2520.png"


def test_names_that_are_no_unicode_can_be_written(tmp_path):
    odd = replace(view("a.png"), image="a\udcff.png", restored={"SPAN": "a\udcff.png"})
    html = write_page(tmp_path, page([], [odd])).read_text(encoding="utf-8")
    assert views_in(html)[0]["files"]["r0"] == "a%FF.png"


@pytest.mark.parametrize("path", ["", "/etc/a.png", "//host/a.png"])
def test_a_file_away_from_the_page_is_refused(path):
    with pytest.raises(DataError, match="relative to the report's folder"):
        render(page([], [replace(view("a.png"), baseline=path)]))


def test_infinite_and_unknown_figures():
    rows = [row("inf.png", math.inf), row("nan.png", math.nan), row("worse.png", 29.5)]
    html = render(page(rows, [view(r.image) for r in rows]))
    assert cells_of(html, "inf.png") == ["30.00", "0.8000", "∞", "0.9000", "+∞"]
    assert cells_of(html, "nan.png") == ["30.00", "0.8000", "–", "0.9000", "–"]
    assert cells_of(html, "worse.png") == ["30.00", "0.8000", "29.50", "0.9000", "−0.50"]
    assert not re.search(r"\b(nan|inf|NaN)\b(?!\.png)", re.sub(r"(?s)<script>.*", "", html))


def test_a_gain_that_rounds_to_nothing_has_no_sign():
    html = render(page([row("a.png", 29.999), row("b.png", 30.001)], []))
    assert cells_of(html, "a.png")[-1] == cells_of(html, "b.png")[-1] == "0.00"


def test_rows_are_sorted_by_gain_and_unknown_comes_last():
    psnr = {"b.png": 31, "nan.png": math.nan, "c.png": 29, "inf.png": math.inf, "a.png": 32}
    rows = [row(name, value) for name, value in psnr.items()]
    html = render(page(rows, []))
    assert names_in_order(html) == ["inf.png", "a.png", "b.png", "c.png", "nan.png"]
    assert html.count("number worse") == 1


def test_without_a_target_there_are_no_figures_and_no_target():
    nothing = {"psnr": math.nan, "ssim": math.nan, "input_psnr": math.nan, "input_ssim": math.nan}
    rows = [row("seen.png", 31), replace(row("wild.png", 55, set_name="Wild"), **nothing)]
    wild = view("wild.png", set_name="Wild", target=False)
    html = render(page(rows, [view("seen.png"), wild]))
    assert cells_of(html, "wild.png") == ["–"] * 5
    data = views_in(html)[1]
    assert data["files"]["target"] is None and data["notes"] == {}


def test_an_image_without_a_row_can_still_be_seen():
    html = render(page([row("a.png", 31)], [view("a.png"), view("b.png")]))
    assert names_in_order(html) == ["a.png", "b.png"]
    assert html.count("<tr data-view=") == 2 and html.count('<button type="button" data-view=') == 2


def test_an_input_that_is_its_own_baseline_is_shown_once():
    same = replace(view("a.png"), lq="images/a_baseline.png")
    files = views_in(render(page([row("a.png", 31)], [same], baseline="input")))[0]["files"]
    assert files["lq"] is None and files["baseline"] == "images/a_baseline.png"


def test_nothing_is_fetched_from_elsewhere():
    html = render(page([row("a.png", 31)], [view("a.png")]))
    for _, attributes in Elements(html).found:
        assert not {"href", "srcset", "action"} & attributes.keys()
        assert not (attributes.get("src") or "").startswith(("/", "http"))
    assert (
        re.findall(r"url\(([^)]*)\)", html) == ["#error-4", "#error-16"] and "@import" not in html
    )
    assert "http://" not in html
    assert html.count("https://") == 1  # the fact, as text
    assert "default-src 'none'" in html


def test_protocol_and_facts_are_named():
    html = render(page([row("a.png", 31)], []))
    assert "sr-y" in html and "ab" * 32 in html and "<title>SPAN on Set5</title>" in html


def test_a_set_without_figures_has_no_curve():
    """A validation set without ground truth has a NaN at each of its steps."""
    curves = [
        Series("SPAN", "loss", (1, 2), (0.2, 0.1)),
        Series("SPAN", "val/Wild/psnr", (1, 2), (math.nan, math.nan)),
        Series("SPAN", "val/Once/psnr", (1, 2), (math.nan, 30.0)),
    ]
    html = render(replace(page([row("a.png", 31)], []), curves=curves))
    assert "Training loss" in html and "Wild" not in html and "Once" not in html


def test_curves_are_read_of_what_can_be_drawn(tmp_path):
    lines = ['{"step": 1, "loss": 0.5, "val/a/b/psnr": 30}', '{"step": 2, "loss": 0.25}']
    lines += [f'{{"step": 3, "loss": {"9" * 400}}}', '{"step": Infinity, "loss": 0.1}', "[1]", "{"]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    loss, psnr = read_curves("run", tmp_path / "log.jsonl")
    assert (loss.steps, loss.values) == ((1, 2, math.inf), (0.5, 0.25, 0.1))
    assert (psnr.measure, psnr.values) == ("val/a/b/psnr", (30,))
    longer = replace(psnr, steps=(1, 2), values=(30, 31))
    html = render(replace(page([row("a.png", 31)], []), curves=[loss, longer]))
    assert "Training loss" in html and "Validation PSNR, a/b<" in html


def test_only_what_both_tests_hold_for_a_difference_is_coloured():
    def tone(count: int) -> str:
        first = [row(f"{k}.png", 30 + k) for k in range(count)]
        better = [replace(r, psnr=r.psnr + 0.1 + 0.01 * k) for k, r in enumerate(first)]
        (line,) = difference_lines([Contender("A", 1, first), Contender("B", 1, better)])
        return line.mean.tone

    assert tone(2) == "" and tone(10) == "better"


def matrix(views: list[ImageViews]) -> Page:
    """Two networks on two sets under two protocols, a published row, curves and a failure."""

    def scored(psnrs: list[float], protocol: str) -> list[ImageRow]:
        images = [("a b#1.png", "Set5"), ("b.png", "Set5"), ("m.png", "Set14")]
        return [
            replace(row(image, psnr, set_name=name), protocol=protocol)
            for (image, name), psnr in zip(images, psnrs, strict=True)
        ]

    span = Contender("SPAN", 498_208, scored([32, 29, 31], "sr-y") + scored([30, 27, 29], "rgb"))
    mair = Contender("MaIR", 897_228, scored([31, 30, 31], "sr-y") + scored([29, 28, 29], "rgb"))
    return Page(
        "matrix", FACTS, [span, mair], "bicubic", views,
        [Quoted("GRL-T", "sr-y", "a table", {"Set5": (40.0, math.nan)})],
        [Series("SPAN", "loss", (1, 2, 3), (0.3, 0.2, 0.1))],
        ["MaIR on B100, sr-y: error[DAT02]: …"], [("CSV", "tables.csv")],
    )  # fmt: skip


def test_a_matrix_shows_who_is_best():
    html = render(matrix([]))
    table = table_of(html, '<table class="scores">')
    lines = {re.findall(r'data-key="([^"]*)"', part)[0]: part for part in table.split("<tr")[3:]}
    assert list(lines) == ["bicubic", "SPAN", "MaIR", "GRL-T"]
    cell = r'class="number (\w*) [^>]*><span>([^<]*)'
    figures = {name: re.findall(cell, line)[2:] for name, line in lines.items()}
    assert figures["SPAN"] == figures["MaIR"]  # two networks share the first place
    assert figures["SPAN"][::2] == [("best", "30.50"), ("best", "31.00")]
    assert figures["bicubic"][::2] == [("second", "30.00"), ("second", "30.00")]
    assert figures["GRL-T"] == [("", "40.00"), ("", "–"), ("unknown", "–"), ("unknown", "–")]
    assert "published" in lines["GRL-T"] and ">published<" not in lines["SPAN"]
    assert html.count('<table class="scores">') == 2 and "error[DAT02]" in html
    assert cells_of(html, "b.png")[2::2] == ["29.00", "30.00", "0.00"]


def test_only_the_first_protocol_is_listed_at_first():
    table = table_of(render(matrix([])), '<table id="images">')
    rules = re.findall(r'data-rule="([^"]*)"( hidden)?', table)
    assert rules == [("sr-y", "")] * 3 + [("rgb", " hidden")] * 3


def test_the_viewer_names_the_protocol_of_its_figures():
    notes = [one["notes"] for one in views_in(render(matrix([view("b.png"), view("z.png")])))]
    assert list(notes[0]) == ["sr-y", "rgb"] and notes[1] == {}
    assert notes[0]["rgb"] == {
        "r0": "27.00 dB / 0.9000", "r1": "28.00 dB / 0.9000", "baseline": "30.00 dB / 0.8000",
        "gain": "−2.00 dB",
    }  # fmt: skip


def test_protocols_are_told_apart():
    """What each compares, how far they are apart, who was left out; the fourth is folded away."""
    rules = {"sr-y@1": 31.0, "rgb@1": 29.5, "grl-y@1": 31.25, "vdsr-y@1": 31.1}
    rows = [replace(row("a.png", psnr), protocol=rule) for rule, psnr in rules.items()]
    of_rule = {"sr-y@1": "luma <not rounded>"}
    one = replace(page(rows, []), protocols=of_rule, left_out=["realblur-rgb@1 on Set5: <why>"])
    html = render(one)
    assert "border 2; luma &lt;not rounded&gt;" in html and "on Set5: &lt;why&gt;" in html
    assert html.count("<details") == html.count("</details>") == 1 and ">1 more protocol<" in html
    table = html[html.index('id="spreads-title"') :]
    table = table[: table.index("</section>")]
    assert re.findall(r"<span>([\d.]+)</span>", table)[:3] == ["29.50", "31.25", "1.75"]
    assert "rgb@1" in table and "grl-y@1" in table and "4 protocols" in table
    html = render(page([row("a.png", 31)], []))
    assert "spreads-title" not in html and "<details" not in html


@pytest.fixture
def report(tmp_path) -> Path:
    """A page with three images, two with a target; each layer has one colour and a white mark."""
    views = [view("a b#1.png"), view("b.png"), view("c.png", target=False)]
    paint(tmp_path, views)
    rows = [row("a b#1.png", 32), row("b.png", 29)]
    return write_page(tmp_path, page(rows, views))


def paint(folder: Path, views: list[ImageViews]) -> None:
    """Every view's files: one colour a layer, noise as the target."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(exist_ok=True)
    for one in views:
        files = {"lq": one.lq, "baseline": one.baseline, "thumb": one.thumb}
        files |= {"r0" if name == "SPAN" else name: file for name, file in one.restored.items()}
        for layer, file in files.items():
            size = (HEIGHT // 2, WIDTH // 2, 3) if layer == "lq" else (HEIGHT, WIDTH, 3)
            colour = COLOURS.get(layer, MAIR)
            cv2.imwrite(str(folder / str(file)), np.full(size, colour, np.uint8))
        if one.target:
            noise = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            cv2.imwrite(str(folder / one.target), noise)


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


LOADED = "() => [...document.querySelectorAll('#picture img:not([hidden])')]" + (
    ".every(image => image.complete && image.naturalWidth)"
)


def opened(browser, report: Path, size: dict[str, int] | None):
    """The page in a tab, and the list of what goes wrong there or is asked from elsewhere."""
    tab = browser.new_page(viewport=size or {"width": 1280, "height": 900})
    troubles: list[str] = []

    def asked(url: str) -> None:
        if not url.startswith(report.parent.as_uri()):
            troubles.append(url)

    tab.on("console", lambda m: troubles.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("requestfailed", lambda request: troubles.append(request.url))
    tab.on("request", lambda request: asked(request.url))
    tab.goto(report.as_uri())
    wait_until(tab, LOADED)
    return tab, troubles


@pytest.mark.browser
def test_in_a_browser(report, browser):
    tab, troubles = opened(browser, report, None)
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
    assert colour_at(picture, 0.9, 0.9) == COLOURS["r0"]
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
    assert colour_at(picture, 0.25, 0.9) == COLOURS["r0"]
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
    tab.locator("input[name=left][value=r0]").check()
    assert colour_at(picture, 0.9, 0.9) == COLOURS["r0"]
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
    wait_until(tab, LOADED)
    assert tab.locator("#viewer-name").inner_text() == "c.png"
    assert tab.locator("#crops figure:visible").count() == 3
    assert tab.locator("input[name=right]:checked").get_attribute("value") == "r0"
    assert tab.locator("[data-layer=target]:visible").count() == 0
    tab.locator("#next").click()
    assert tab.locator("#viewer-name").inner_text() == "b.png"

    # A window that was narrow for a while has not shrunk the region for good.
    region = where.inner_text()
    tab.set_viewport_size({"width": 120, "height": 300})
    tab.set_viewport_size({"width": 1280, "height": 900})
    wait_until(tab, f"document.getElementById('where').textContent === {json.dumps(region)}")

    # A phone has no sideways scrolling.
    tab.set_viewport_size({"width": 360, "height": 780})
    wait_until(tab, "document.documentElement.scrollWidth <= innerWidth")

    wait_until(tab, LOADED)
    assert troubles == []


@pytest.mark.browser
def test_a_matrix_in_a_browser(tmp_path, browser):
    views = [view("a b#1.png", who=("SPAN", "MaIR")), view("b.png", who=("SPAN", "MaIR"))]
    views.append(view("m.png", set_name="Set14", who=("SPAN",)))  # MaIR's picture was not kept
    paint(tmp_path, views)
    report = write_page(tmp_path, matrix(views))
    tab, troubles = opened(browser, report, {"width": 1280, "height": 900})
    shown = "() => [...document.querySelectorAll('#images tbody tr')].filter(r => !r.hidden)" + (
        ".map(r => r.cells[0].dataset.key)"
    )
    scores = "() => [...document.querySelector('.scores').tBodies[0].rows]" + (
        ".map(r => r.cells[0].dataset.key)"
    )

    # Scores sort by any column: figures from the largest on, costs from the smallest on.
    first = tab.locator(".scores").first
    first.locator("th button", has_text="SSIM").first.click()
    assert tab.evaluate(scores)[-1] == "GRL-T"  # its SSIM is unknown
    first.locator("th button", has_text="Parameters").focus()
    tab.keyboard.press("Enter")
    assert tab.evaluate(scores)[:2] == ["SPAN", "MaIR"]
    first.locator("th button", has_text="PSNR").first.click()
    assert tab.evaluate(scores)[0] == "GRL-T"

    # Filters of set and protocol also thin out the strip; SSIM takes the place of PSNR.
    assert tab.evaluate(shown) == ["a b#1.png", "m.png", "b.png"]
    tab.locator("#only").select_option("Set14")
    assert tab.evaluate(shown) == ["m.png"]
    assert tab.locator("#strip button:visible").count() == 1
    tab.locator("#only").select_option("")
    tab.locator("#rule").select_option("rgb")
    line = tab.locator("#images tbody tr:visible", has_text="b.png")
    assert "28.00" in line.inner_text() and "30.00" not in line.inner_text().split("\t")[3]
    tab.locator("#strip button", has=tab.locator("img[src*='b_thumb']")).click()
    assert tab.locator("#viewer-about").inner_text() == "Set5 · 96 × 64 · rgb: gain −2.00 dB"
    caption = tab.locator("figure[data-layer=r1] figcaption span")
    assert caption.inner_text() == "28.00 dB / 0.9000"
    tab.locator("#rule").select_option("sr-y")
    assert tab.locator("#viewer-about").inner_text() == "Set5 · 96 × 64 · sr-y: gain 0.00 dB"
    assert caption.inner_text() == "30.00 dB / 0.9000"
    tab.locator("#rule").select_option("rgb")
    tab.locator("#measure").select_option("ssim")
    assert "0.9000" in line.inner_text() and "28.00" not in line.inner_text()

    # Another network against the first, on the slider.
    picture = tab.locator("#picture")
    tab.locator("#strip button").first.click()
    tab.locator("input[name=left][value=r0]").check()
    tab.locator("input[name=right][value=r1]").check()
    wait_until(tab, LOADED)
    assert colour_at(picture, 0.25, 0.9) == COLOURS["r0"]
    assert colour_at(picture, 0.9, 0.9) == MAIR

    # Error maps: black where there is no error, bright where there is.
    tab.locator("input[name=show][value='4']").check()
    tab.locator("input[name=right][value=target]").check()
    assert max(colour_at(picture, 0.9, 0.9)) < 12
    assert tab.locator("#scale").inner_text().split() == ["0", "64", "of", "255"]
    left = [max(colour_at(picture, x / 50, 0.9)) for x in range(2, 20)]
    assert max(left) > 200
    tab.locator("input[name=show][value='0']").check()
    assert colour_at(picture, 0.25, 0.9) == COLOURS["r0"]

    # Zoom by keys and buttons.
    where = tab.locator("#where")
    assert "16 × 12 px" in where.inner_text()
    picture.press("+")
    assert "8 × 6 px" in where.inner_text()
    tab.locator("#farther").click()
    tab.locator("#farther").click()
    assert "32 × 24 px" in where.inner_text()

    # What was not kept cannot be chosen; the choice falls back to what is there.
    tab.locator("input[name=left][value=r1]").check()
    tab.locator("#rule").select_option("sr-y")
    tab.locator("#images tbody tr:visible", has_text="m.png").click()
    wait_until(tab, LOADED)
    assert tab.locator("[data-layer=r1]:visible").count() == 0
    assert tab.locator("input[name=left]:checked").get_attribute("value") == "baseline"
    for size in ({"width": 390, "height": 844}, {"width": 1900, "height": 1000}):
        tab.set_viewport_size(size)
        wait_until(tab, "document.documentElement.scrollWidth <= innerWidth")
    assert troubles == []


@pytest.mark.browser
def test_the_keyboard_reaches_every_control(tmp_path, browser):
    views = [view("a b#1.png", who=("SPAN", "MaIR")), view("b.png", who=("SPAN", "MaIR"))]
    paint(tmp_path, views)
    tab, troubles = opened(browser, write_page(tmp_path, matrix(views)), None)
    reached: list[str] = []
    for _ in range(80):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("(e => e.id || e.name || e.tagName)(document.activeElement)"))
    for control in ("picture", "slider", "left", "right", "show", "next", "closer", "only", "rule"):
        assert control in reached, control
    assert troubles == []


@pytest.mark.browser
def test_five_hundred_images_stay_smooth(tmp_path, browser):
    views = [view(f"{k:03d}.png") for k in range(500)]
    paint(tmp_path, views)
    rows = [row(f"{k:03d}.png", 30 + k / 100) for k in range(500)]
    tab, troubles = opened(browser, write_page(tmp_path, page(rows, views)), None)
    loaded = "() => [...document.querySelectorAll('#strip img')]" + (
        ".filter(i => i.complete && i.naturalWidth).length"
    )
    assert tab.evaluate(loaded) < 120  # thumbnails come when they are scrolled to
    took = tab.evaluate(
        """() => {
          const start = performance.now();
          document.querySelector('#images thead th button').click();
          document.body.getBoundingClientRect();
          return performance.now() - start;
        }"""
    )
    assert took < 500
    tab.locator("#named").fill("499")
    assert tab.locator("#images tbody tr:visible").count() == 1
    tab.locator("#named").fill("")
    for _ in range(20):
        tab.locator("#next").click()
    assert tab.locator("#strip [aria-current]").count() == 1
    assert troubles == []
