"""Every notebook with widgets in a real browser: all cells run, widgets move, the figure changes, nothing fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pudnet_lib.batch.notebook import read_notebook, strip

ROOT = Path(__file__).parents[2]
#: Milliseconds to wait for anything; a test that passes never waits that long on an idle machine.
PATIENCE = 120_000
SLIDERS, LISTS = ".jp-OutputArea .widget-slider .noUi-handle", ".jp-OutputArea .widget-dropdown select"
#: Notebooks all of whose sliders and lists are moved, with how many there are.
EVERY = {"01_parameter_correlations": 11}
WIDGETS = ("Panel(", "ipywidgets", "interact", "_panel(", "widget")


def interactive(path: Path) -> bool:
    return any(
        word in cell.source for cell in read_notebook(path).cells if cell.cell_type == "code" for word in WIDGETS
    )


NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if interactive(path)]
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


def moves(page, every: bool) -> list[tuple[Callable[..., None], int]]:
    """The first slider, without one the first list; or all sliders and lists."""
    sliders = [(move_slider, number) for number in range(page.locator(SLIDERS).count())]
    lists = [(move_list, number) for number in range(page.locator(LISTS).count())]
    return sliders + lists if every else (sliders + lists)[:1]


def check(browser, address: str, shot: Path, seconds: float = 300.0, every: bool = False) -> int:
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    try:
        run_all(page, address, seconds)
        page.wait_for_selector(".jp-OutputArea .widget-slider, .jp-OutputArea .widget-dropdown", timeout=PATIENCE)
        page.wait_for_function(IDLE, timeout=PATIENCE)
        steps = moves(page, every)
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
    moved = check(browser, lab(path), screenshots / f"{path.stem}.png", every=path.stem in EVERY)
    assert moved == EVERY.get(path.stem, 1)
