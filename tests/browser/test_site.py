"""The report site in a real browser: no console message, no request leaves the page, it fits a phone."""

from __future__ import annotations

import pandas as pd
import pytest

from pudnet_lib.batch.results import svg_text
from pudnet_lib.batch.site import build_site
from pudnet_lib.plots import figure, intervals
from pudnet_lib.results import Headline, write_result

FACTS = {"config": {}, "seed": 0, "seconds": 75.0, "commit": "0123456789", "versions": {}, "device": "a laptop",
         "peak_memory_mb": 1234.0}  # fmt: skip


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The address of a report with two made-up experiments."""
    monkeypatch.setenv("PUDNET_ROOT", str(tmp_path))
    (tmp_path / "notebooks").mkdir()
    folder = tmp_path / "reports" / "results"
    folder.mkdir(parents=True)
    names = ["PudNet", "far swap", "near swap", "shared network", "from scratch"]
    rows = pd.DataFrame(
        [
            {"method": name, "dataset": "made up", "metric": "top-1", "mean": 50.0 + 3 * i, "low": 48.0 + 3 * i,
             "high": 52.0 + 3 * i, "n": 100, "seeds": 3, "chance": 25.0, "prediction_seconds": 0.05}
            for i, name in enumerate(names)
        ]
    )  # fmt: skip
    for name in ("first", "second"):
        made, axes = figure()
        intervals(rows, axes[0, 0])
        (folder / f"{name}.laptop.dots.svg").write_text(svg_text(made, name))
        head = [Headline("ConvNet-3, made up", "top-1, %", 60, 20, 50, 0.05, 25, (58, 62), (48, 52), "draft")]
        write_result(
            folder / f"{name}.laptop.json", name, "Is this made up?", "Yes, all of it.", rows, FACTS, head,
            profile="laptop", figures=[{"name": "dots", "alt": "Five methods", "file": f"{name}.laptop.dots.svg"}],
        )  # fmt: skip
    return build_site().as_uri()


VIEWS = {
    "light": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "color_scheme": "light"},
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
    assert page.get_by_role("img", name="Five methods").count() == 2
    page.locator("summary").first.click()
    assert page.locator(".card table").first.is_visible()
    context.close()
