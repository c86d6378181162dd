"""The report site in a real browser: no console message, no request leaves the page, it fits a phone."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.figure import Figure

from pudnet_lib.batch.site import build_site
from pudnet_lib.results import Headline, drawing, write_result

FACTS = {"config": {}, "seed": 0, "seconds": 75.0, "commit": "0123456789", "versions": {}, "device": "a laptop",
         "peak_memory_mb": 1234.0}  # fmt: skip


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The address of a report with two made-up experiments."""
    monkeypatch.setenv("PUDNET_ROOT", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_first.ipynb").write_text("{}")
    folder = tmp_path / "reports" / "results"
    folder.mkdir(parents=True)
    names = ["PudNet (kit)", "far swap", "near swap", "shared network", "from scratch", "a", "b", "c"]
    rows = pd.DataFrame(
        [
            {"method": name, "dataset": source, "metric": "top-1", "mean": 50.0 + 3 * i, "low": 48.0 + 3 * i,
             "high": 52.0 + 3 * i, "n": 100, "seeds": 3, "chance": 25.0, "prediction_seconds": 0.05}
            for i, name in enumerate(names)
            for source in ("fashion", "glyphs")
        ]
    )  # fmt: skip
    for name in ("first", "second"):
        made = Figure((7, 3))
        axes = made.subplots()
        axes.errorbar(rows["mean"], rows["method"], xerr=2, fmt="o")
        drawings = {f"{name}.laptop.dots.svg": drawing(made, name)[1]}
        figures = [{"name": "dots", "alt": "Five methods of two", "file": f"{name}.laptop.dots.svg"}]
        head = [Headline("ConvNet-3, made up", "top-1, %", 60, 20, 50, 0.05, 25, (58, 62), (48, 52), "draft")]
        write_result(
            folder / f"{name}.laptop.json", name, "Is this made up?", "**Yes**, all of the shared network.", rows,
            FACTS, head, profile="laptop", figures=figures, drawings=drawings,
        )  # fmt: skip
    return build_site()[0].as_uri()


VIEWS = {
    "light": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "color_scheme": "light"},
    "dark phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "color_scheme": "dark"},
}


@pytest.mark.browser
@pytest.mark.parametrize("view", VIEWS)
def test_the_report_is_silent_self_contained_and_fits(browser, site, screenshots, view):
    context = browser.new_context(**VIEWS[view])
    page = context.new_page()
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(site)
    page.screenshot(path=screenshots / f"site-{view}.png", full_page=True)
    assert messages == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    width, window = page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= window
    # The figure's ink is the page's, its ground is the card's.
    ink = page.evaluate("() => getComputedStyle(document.querySelector('figure svg text')).fill")
    assert ink == page.evaluate("() => getComputedStyle(document.body).color")
    assert page.get_by_role("img", name="Five methods of two").count() == 3  # the first screen has one, too
    assert page.locator("strong").first.inner_text() == "Yes"
    assert page.locator("abbr").first.get_attribute("title")
    context.close()


@pytest.mark.browser
def test_tables_sort_filter_and_pivot(browser, site):
    page = browser.new_page()
    page.goto(site)
    card = page.locator("#first")
    card.get_by_text("All numbers (16 rows)").click()
    table = card.locator("table.data").first
    first = table.locator("tbody tr").first
    assert table.locator("thead th").all_inner_texts() == ["Method", "Metric", "fashion", "glyphs"]
    assert first.inner_text().startswith("PudNet (kit)")
    table.get_by_role("button", name="fashion").click()
    table.get_by_role("button", name="fashion").click()
    assert first.inner_text().split("\t")[0] == "c"
    assert table.locator("th[aria-sort=descending]").count() == 1
    box = card.get_by_label("Filter rows").first
    box.fill("swap near")
    assert table.locator("tbody tr:visible").all_inner_texts()[0].startswith("near swap")
    assert table.locator("tbody tr:visible").count() == 1
    with page.expect_download() as download:
        card.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "first.laptop.csv"
    assert download.value.path().read_text().startswith("method,dataset,metric,mean")
    page.goto(f"{site}#glossary")
    assert page.locator("#glossary").is_visible()
    page.close()
