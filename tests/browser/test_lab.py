"""Every notebook with widgets in a real browser: all cells run, widgets move, the figure changes, nothing fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pudnet_lib.batch.notebook import read_notebook, strip
from pudnet_lib.studies.explore import Cell, Study, explorer_data, page

ROOT = Path(__file__).parents[2]
#: Milliseconds to wait for anything; a test that passes never waits that long on an idle machine.
PATIENCE = 120_000
SLIDERS, LISTS = ".jp-OutputArea .widget-slider .noUi-handle", ".jp-OutputArea .widget-dropdown select"
WIDGETS = ("Panel(", "ipywidgets", "interact", "_panel(", "widget")


def interactive(path: Path) -> bool:
    return any(
        word in cell.source for cell in read_notebook(path).cells if cell.cell_type == "code" for word in WIDGETS
    )


#: Notebook 01's linked figure has a test of its own, below.
NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").glob("0[!1]*.ipynb")) if interactive(path)]
IDLE = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
# The last code cell has run once it has a number.
LAST_RUN = """() => {
  const cells = window.jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code');
  const failed = cells.some(cell => cell.model.outputs.toJSON().some(output => output.output_type === 'error'));
  return failed || Boolean(cells.at(-1).model.executionCount);
}"""
ERRORS = """() => window.jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code')
  .flatMap(cell => cell.model.outputs.toJSON()).filter(output => output.output_type === 'error')
  .map(output => output.ename + ': ' + output.evalue)"""
PICTURES = """() => Array.from(document.querySelectorAll('.jp-OutputArea img')).map(image => image.src).join(' ')"""
# Cells out of sight are not drawn: have them all.
DRAW_ALL = """() => window.jupyterapp.shell.currentWidget.content.widgets.forEach(cell => cell.node.scrollIntoView())"""


def run_all(page, address: str, seconds: float) -> None:
    page.goto(address)
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=PATIENCE)
    page.wait_for_function(IDLE, timeout=PATIENCE)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_function(LAST_RUN, timeout=1000 * seconds)
    assert page.evaluate(ERRORS) == []


def move_slider(page, number: int = 0) -> None:
    """Move a slider one step, at its upper end downwards."""
    handle = page.locator(SLIDERS).nth(number)
    handle.scroll_into_view_if_needed()
    handle.focus()
    before = handle.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowRight")
    if handle.get_attribute("aria-valuetext") == before:
        page.keyboard.press("ArrowLeft")


def move_list(page, number: int = 0) -> None:
    """Choose the second option of a list."""
    choice = page.locator(LISTS).nth(number)
    choice.scroll_into_view_if_needed()
    choice.select_option(value=choice.locator("option").nth(1).get_attribute("value"))


def moves(page) -> list[tuple[Callable[..., None], int]]:
    """The first slider, without one the first list."""
    sliders = [(move_slider, number) for number in range(page.locator(SLIDERS).count())]
    lists = [(move_list, number) for number in range(page.locator(LISTS).count())]
    return (sliders + lists)[:1]


def check(browser, address: str, shot: Path, seconds: float = 300.0) -> int:
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    try:
        run_all(page, address, seconds)
        page.wait_for_selector(".jp-OutputArea .widget-slider, .jp-OutputArea .widget-dropdown", timeout=PATIENCE)
        page.wait_for_function(IDLE, timeout=PATIENCE)
        steps = moves(page)
        for move, number in steps:
            before = page.evaluate(PICTURES)
            assert before
            move(page, number)
            changed = f"before => ({PICTURES})() !== before"
            page.wait_for_function(changed, arg=before, timeout=PATIENCE)
            page.wait_for_function(IDLE, timeout=PATIENCE)
        assert page.evaluate(ERRORS) == []
    finally:
        page.screenshot(path=shot)  # of a failure, too
        page.close()
    assert faults == []
    assert shot.stat().st_size > 10_000
    return len(steps)


@pytest.mark.browser
def test_a_panel_in_a_small_notebook(browser, lab, screenshots, tmp_path):
    import nbformat
    from nbformat import v4

    cell = """from pudnet_lib.plots import figure
from pudnet_lib.widgets import Panel

def line(slope, kind):
    made, axes = figure(4, 2)
    axes[0, 0].plot([0, 1], [0, slope])
    return made

Panel(line, slope=(1, 5), kind=["a", "b"])"""
    path = tmp_path / "small.ipynb"
    small = v4.new_notebook(cells=[v4.new_code_cell("import sys"), v4.new_code_cell(cell)])
    strip(small)  # it names the kernel; without one JupyterLab asks
    nbformat.write(small, path)
    check(browser, lab(path), screenshots / "small.png")


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_with_widgets(browser, lab, screenshots, path):
    assert check(browser, lab(path), screenshots / f"{path.stem}.png") == 1


EXPLORE = ROOT / "notebooks" / "01_parameter_correlations.ipynb"
REACTION = 300  # milliseconds, on results that are there
TIMED_CLICK = """box => { const began = performance.now(); box.dispatchEvent(new MouseEvent('click'));
  return performance.now() - began; }"""


def explore(tab) -> None:
    """Use the figure as a reader would; each answer comes in time."""
    figure, said = tab.locator(".pk").first, tab.locator(".pk .said").first
    figure.scroll_into_view_if_needed()
    dot = figure.locator("circle").last
    dot.hover()
    assert figure.locator(".tip").is_visible()
    assert "accuracy" in figure.locator(".tip").inner_text()
    assert figure.locator(".tip img").evaluate("image => image.naturalWidth") > 50
    name = figure.locator(".tip").inner_text().split(":")[0]
    dot.click()
    assert f"Ringed: {name}" in said.inner_text()

    assert figure.locator("[data-cell='convolution 1|HOG']").evaluate(TIMED_CLICK) < REACTION
    figure.locator("[data-cell='convolution 2|pixel statistics']").click()
    tab.wait_for_selector(".pk [data-cell='convolution 2|pixel statistics'].chosen")
    figure.locator(".pairs button").nth(1).click()
    assert "pair 2" in figure.locator(".pairs button.on").inner_text()
    assert "direction 2" in figure.locator("svg.plot").text_content()

    points = figure.locator("circle").count()
    box = figure.locator("svg.plot").bounding_box()
    tab.mouse.move(box["x"] + 55, box["y"] + 5)
    tab.mouse.down()
    for x, y in ((372, 5), (372, 325), (55, 325)):
        tab.mouse.move(box["x"] + x, box["y"] + y, steps=4)
    tab.mouse.up()
    assert f"{points} of" in said.inner_text()
    assert "r = " in said.inner_text()
    tab.mouse.click(box["x"] + 60, box["y"] + 10)
    assert "Ringed" in said.inner_text()

    tab.mouse.move(box["x"] + 60, box["y"] + 320)
    for _ in range(6):
        tab.mouse.wheel(0, -200)
    tab.wait_for_function("few => document.querySelectorAll('.pk circle').length < few", arg=points)
    tab.mouse.dblclick(box["x"] + 60, box["y"] + 320)
    tab.wait_for_function("all => document.querySelectorAll('.pk circle').length === all", arg=points)


@pytest.mark.browser
def test_the_figure_as_a_page_needs_no_kernel(browser, screenshots, tmp_path, monkeypatch):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    study = Study(("fashion", "glyphs"), ("same",), 16, 8, permutations=20)
    own = study.zoos["glyphs", "same"].episodes.dataset("held-out", 0)
    path = tmp_path / "page.html"
    path.write_text(page(explorer_data(study, Cell("all sources", components=2), [own])))
    tab = browser.new_page(viewport={"width": 1100, "height": 560})
    faults = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda message: faults.append(message.text))
    tab.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
    tab.goto(path.as_uri())
    tab.wait_for_selector(".pk circle")
    assert tab.locator(".pk .added").count() == 1
    explore(tab)
    tab.screenshot(path=screenshots / "explore-page.png")
    tab.close()
    assert faults == []


@pytest.mark.browser
@pytest.mark.slow
def test_the_figure_in_jupyterlab_is_linked_to_the_layers(browser, lab, screenshots):
    tab = browser.new_page(viewport={"width": 1300, "height": 1000})
    faults = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    try:
        run_all(tab, lab(EXPLORE), 400)
        tab.evaluate(DRAW_ALL)
        tab.wait_for_selector(".pk circle", timeout=PATIENCE)
        tab.wait_for_function(IDLE, timeout=PATIENCE)
        before = tab.evaluate(PICTURES)
        explore(tab)
        tab.wait_for_function(f"before => ({PICTURES})() !== before", arg=before, timeout=PATIENCE)
        tab.locator(".jp-OutputArea .widget-dropdown select").first.select_option(label="glyphs")
        tab.wait_for_function("() => /glyphs/.test(document.querySelector('.pk .said').textContent)", timeout=PATIENCE)
        tab.wait_for_function(IDLE, timeout=PATIENCE)
        assert tab.evaluate(ERRORS) == []
    finally:
        tab.screenshot(path=screenshots / "explore-lab.png")  # of a failure, too
        tab.close()
    assert faults == []
