"""Notebooks with widgets in a real browser: they run up to their panels, and the panels are used as a reader would.

The tests marked ``slow`` start a JupyterLab and run a notebook's first cells, a minute each on two idle cores:
``PUDNET_PROFILE=smoke python -m pytest tests/browser -m slow``. ``PUDNET_SCREENSHOTS=DIR`` keeps their pictures.
"""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pudnet_lib
from pudnet_lib.batch.notebook import read_notebook, strip
from pudnet_lib.studies.study import Cell, Study

ROOT = Path(__file__).parents[2]
#: Milliseconds to wait for anything; a test that passes never waits that long on an idle machine.
PATIENCE = 120_000
SLIDERS, LISTS = ".jp-OutputArea .widget-slider .noUi-handle", ".jp-OutputArea .widget-dropdown select"
WIDGETS = ("Panel(", "ipywidgets", "interact", "_panel(", "widget")


def last_panel(path: Path) -> int:
    """The number of a notebook's last cell with a widget, of any kind of cell."""
    cells = enumerate(read_notebook(path).cells)
    return max(n for n, cell in cells if cell.cell_type == "code" and any(word in cell.source for word in WIDGETS))


IDLE = "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
RUN = """async last => {
  const { shell, commands } = window.jupyterapp, notebook = shell.currentWidget.content;
  notebook.activeCellIndex = last;
  if (last) await commands.execute('notebook:run-all-above');
  notebook.activeCellIndex = last;
  commands.execute('notebook:run-cell');
}"""
# A cell has run once it has a number and the kernel is idle.
HAS_RUN = """last => {
  const all = window.jupyterapp.shell.currentWidget.content.widgets;
  const cells = all.filter(cell => cell.model.type === 'code');
  const failed = cells.some(cell => cell.model.outputs.toJSON().some(output => output.output_type === 'error'));
  return failed || Boolean(all[last].model.executionCount);
}"""
ERRORS = """() => window.jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code')
  .flatMap(cell => cell.model.outputs.toJSON()).filter(output => output.output_type === 'error')
  .map(output => output.ename + ': ' + output.evalue)"""
PICTURES = """() => Array.from(document.querySelectorAll('.jp-OutputArea img')).map(image => image.src).join(' ')"""
# Cells out of sight are not drawn: have them all.
DRAW_ALL = """() => window.jupyterapp.shell.currentWidget.content.widgets.forEach(cell => cell.node.scrollIntoView())"""
DROP = """(zone, [name, text]) => {
  const transfer = new DataTransfer(), bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  transfer.items.add(new File([bytes], name));
  zone.dispatchEvent(new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""
SIDEBARS = """() => { const { shell } = window.jupyterapp; shell.collapseLeft(); shell.collapseRight(); }"""
THEME = """dark => window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab ' + dark })"""
# What sticks out of the place that it is drawn in, and cannot be scrolled to.
CUT_OFF = """() => Array.from(document.querySelectorAll('.jp-OutputArea-output')).filter(output => {
  const box = output.getBoundingClientRect();
  return box.height && getComputedStyle(output).overflowX === 'hidden' && output.scrollWidth > output.clientWidth + 2;
}).map(output => output.textContent.slice(0, 80) + output.scrollWidth + ' > ' + output.clientWidth)"""


@contextmanager
def running(browser, address: str, last: int, shot: Path) -> Iterator[object]:
    """A tab in which a notebook has run up to a cell; no error in its cells or in the page, also afterwards."""
    tab = browser.new_page(viewport={"width": 1400, "height": 1000})
    faults = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    try:
        tab.goto(address)
        tab.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=PATIENCE)
        tab.wait_for_function(IDLE, timeout=PATIENCE)
        tab.evaluate(SIDEBARS)
        tab.evaluate(RUN, last)
        tab.wait_for_function(HAS_RUN, arg=last, timeout=PATIENCE)
        tab.wait_for_function(IDLE, timeout=PATIENCE)
        assert tab.evaluate(ERRORS) == []
        yield tab
        tab.wait_for_function(IDLE, timeout=PATIENCE)
        assert tab.evaluate(ERRORS) == []
    finally:
        tab.screenshot(path=shot)  # of a failure, too
        tab.close()
    assert faults == []
    assert shot.stat().st_size > 10_000


def look(tab, panel: str, shot: Path) -> None:
    """Pictures of a panel at three widths, light and dark; nothing of it is cut off."""
    for theme in ("Dark", "Light"):
        tab.evaluate(THEME, theme)
        for width in (1400, 800, 390):
            tab.set_viewport_size({"width": width, "height": 1000})
            tab.wait_for_timeout(300)  # the page settles
            tab.locator(panel).first.evaluate("panel => panel.scrollIntoView()")
            tab.wait_for_timeout(300)
            tab.screenshot(path=shot.with_stem(f"{shot.stem}-{width}-{theme.lower()}"))
            assert tab.evaluate(CUT_OFF) == [], (width, theme)
    tab.set_viewport_size({"width": 1400, "height": 1000})


def drop(tab, name: str, content: bytes) -> None:
    """Drop a file on the page's drop zone."""
    zone = tab.locator(".pk-drop").first
    zone.scroll_into_view_if_needed()
    zone.evaluate(DROP, [name, base64.b64encode(content).decode()])


def picture(pixels: np.ndarray) -> bytes:
    Image.fromarray(pixels).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def zipped(count: int, size: int, noise: int) -> bytes:
    """A zip of three classes of noisy pictures that a glance tells apart: bright above, bright at the left, dark."""
    rng, buffer = np.random.default_rng(0), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for kind in ("above", "left", "dark"):
            for number in range(count):
                pixels = rng.integers(0, noise, (size, size, 3), np.uint8)
                half = np.s_[: size // 2] if kind == "above" else np.s_[:, : size // 2] if kind == "left" else np.s_[:0]
                pixels[half] += 255 - noise
                archive.writestr(f"shapes/{kind}/{number}.png", picture(pixels))
    return buffer.getvalue()


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


def move_and_watch(tab) -> None:
    """Move each kind of control once: the figure changes."""
    tab.wait_for_selector(".jp-OutputArea .widget-slider, .jp-OutputArea .widget-dropdown", timeout=PATIENCE)
    steps = moves(tab)
    assert steps
    for move, number in steps:
        before = tab.evaluate(PICTURES)
        assert before
        move(tab, number)
        tab.wait_for_function(f"before => ({PICTURES})() !== before", arg=before, timeout=PATIENCE)
        tab.wait_for_function(IDLE, timeout=PATIENCE)


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
    with running(browser, lab(path), 1, screenshots / "small.png") as tab:
        move_and_watch(tab)


IMAGES = ROOT / "notebooks" / "00_predict_your_own_images.ipynb"
SAID = ".jp-OutputArea .widget-html:has-text('{}')"


@pytest.mark.browser
@pytest.mark.slow
def test_a_zip_dropped_in_notebook_00_gives_numbers_trust_and_the_network(browser, lab, screenshots, tmp_path):
    with running(browser, lab(IMAGES), last_panel(IMAGES), screenshots / "00.png") as tab:
        drop(tab, "shapes.zip", zipped(20, 40, 100))
        tab.wait_for_selector(SAID.format("held-out images of shapes, predicted in"), timeout=PATIENCE)
        text = tab.locator(SAID.format("held-out images of shapes")).inner_text()
        assert "% of 12 held-out images of shapes" in text
        assert "Distance to the meta-training pool" in text  # the trust report
        assert "Advice: " in text
        assert tab.locator(".pk-drop").inner_text().startswith("shapes.zip")
        with tab.expect_download() as download:
            tab.get_by_role("link", name="Download the network").click()
        assert download.value.suggested_filename == "network.safetensors"
        download.value.save_as(tmp_path / "network.safetensors")
        network = pudnet_lib.load(tmp_path / "network.safetensors")
        assert network.class_names == ("above", "dark", "left")
        look(tab, ".pk-drop", screenshots / "00.png")

        path = tab.get_by_placeholder("a folder or zip")
        path.fill(str(tmp_path / "nowhere"))
        path.press("Enter")
        tab.wait_for_selector(SAID.format("nowhere does not exist"), timeout=PATIENCE)
        assert tab.locator(".jp-OutputArea .widget-image").evaluate("image => image.naturalWidth") == 1  # no old figure


@pytest.mark.browser
@pytest.mark.slow
def test_sixty_megabytes_are_dropped_and_too_much_is_refused_in_words(browser, lab, screenshots, tmp_path):
    (tmp_path / "large.zip").write_bytes(zipped(20, 590, 255))
    assert (tmp_path / "large.zip").stat().st_size > 60 * 10**6
    with (tmp_path / "huge.zip").open("wb") as huge:
        huge.truncate(501 * 2**20)
    with running(browser, lab(IMAGES), last_panel(IMAGES), screenshots / "00-large.png") as tab:
        for name, said in (("huge.zip", "501 MB; at most 500 MB"), ("large.zip", "large.zip")):
            with tab.expect_file_chooser() as chooser:
                tab.locator(".pk-drop button").first.click()
            chooser.value.set_files(tmp_path / name)
            tab.wait_for_selector(f".pk-drop:has-text('{said}')", timeout=PATIENCE)
        tab.wait_for_selector(SAID.format("held-out images of large, predicted in"), timeout=PATIENCE)


@pytest.mark.browser
@pytest.mark.slow
def test_a_picture_of_ones_own_in_notebook_08(browser, lab, screenshots):
    path = ROOT / "notebooks" / "08_denoising.ipynb"
    with running(browser, lab(path), last_panel(path), screenshots / "08.png") as tab:
        move_and_watch(tab)
        before = tab.evaluate(PICTURES)
        tiles = np.random.default_rng(0).integers(60, 200, (6, 6, 3), np.uint8)
        pixels = tiles.repeat(16, 0).repeat(16, 1)
        drop(tab, "mine.png", picture(pixels))
        tab.wait_for_function(f"before => ({PICTURES})() !== before", arg=before, timeout=PATIENCE)
        tab.wait_for_function(IDLE, timeout=PATIENCE)
        assert tab.locator(".pk-drop").inner_text().startswith("mine.png")
        look(tab, ".pk-drop", screenshots / "08.png")
        drop(tab, "tiny.png", picture(pixels[:9, :20]))
        tab.wait_for_selector(SAID.format("tiny.png has 20×9 pixels"), timeout=PATIENCE)


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
def test_the_figure_as_a_page_needs_no_kernel(browser, screenshots, tmp_path, monkeypatch, notebook_functions):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    study = Study(("fashion", "glyphs"), ("same",), 16, 8, permutations=20)
    own = study.zoos["glyphs", "same"].episodes.dataset("held-out", 0)
    path = tmp_path / "page.html"
    notebook = notebook_functions("01_parameter_correlations")
    path.write_text(notebook.page(notebook.explorer_data(study, Cell("all sources", components=2), [own])))
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


CHOOSE = """async ([label, value, wanted]) => {
  const rows = Array.from(document.querySelectorAll('.jp-OutputArea .widget-dropdown'));
  const list = rows.find(row => row.textContent.includes(label)).querySelector('select');
  const began = performance.now();
  list.value = value;
  list.dispatchEvent(new Event('change', { bubbles: true }));
  while (!new RegExp(wanted).test(document.querySelector('.pk .said').textContent)) {
    if (performance.now() - began > 120000) throw new Error('no answer');
    await new Promise(requestAnimationFrame);
  }
  return performance.now() - began;
}"""


@pytest.mark.browser
@pytest.mark.slow
def test_the_figure_in_jupyterlab_is_linked_and_two_data_sets_are_compared(browser, lab, screenshots, tmp_path):
    with running(browser, lab(EXPLORE), last_panel(EXPLORE), screenshots / "01.png") as tab:
        tab.evaluate(DRAW_ALL)
        tab.wait_for_selector(".pk circle", timeout=PATIENCE)
        tab.wait_for_function(IDLE, timeout=PATIENCE)
        before = tab.evaluate(PICTURES)
        explore(tab)
        tab.wait_for_function(f"before => ({PICTURES})() !== before", arg=before, timeout=PATIENCE)
        for source in ("glyphs", "fashion"):  # the first time they are computed
            tab.evaluate(CHOOSE, ["source", source, f"Ringed: {source}"])
            tab.wait_for_function(IDLE, timeout=PATIENCE)
        again = ("glyphs", "fashion") * 3
        took = [tab.evaluate(CHOOSE, ["source", source, f"Ringed: {source}"]) for source in again]
        print("milliseconds from choosing a source to its figure, cached:", *map(round, took))
        assert min(took) < REACTION
        look(tab, ".pk", screenshots / "01.png")

        second = tab.locator(".jp-OutputArea .widget-dropdown:has-text('second') select")
        second.scroll_into_view_if_needed()
        before = tab.evaluate(PICTURES)
        second.select_option(label="fashion")  # beside fashion: the two are one kind
        tab.wait_for_function(f"before => ({PICTURES})() !== before", arg=before, timeout=PATIENCE)
        tab.screenshot(path=screenshots / "01-two.png")

        zipfile.ZipFile(io.BytesIO(zipped(4, 32, 100))).extractall(tmp_path)
        tab.get_by_placeholder("a folder with a subfolder per class").fill(str(tmp_path / "shapes"))
        tab.locator(".jp-OutputArea button:text-is('add')").click()
        tab.wait_for_selector(".pk .added", timeout=PATIENCE)  # a star in the scatter
        star, cloud = tab.locator(".pk .added").bounding_box(), tab.locator(".pk .plot rect").bounding_box()
        assert cloud["x"] <= star["x"] <= cloud["x"] + cloud["width"]  # also where the folder is unlike all episodes
        tab.locator(".pk").first.evaluate("panel => panel.scrollIntoView()")
