from __future__ import annotations

import re

import nbformat
import pandas as pd
import pytest
from nbformat import v4

from pudnet_lib.batch import cards, pages
from pudnet_lib.batch.batch import Run
from pudnet_lib.batch.claims import CLAIMS
from pudnet_lib.batch.site import build_site, readme_text
from pudnet_lib.results import write_result

FACTS = {"config": {}, "seed": 0, "seconds": 75.0, "commit": "0123456789", "versions": {}, "device": "a <laptop>",
         "peak_memory_mb": 1234.0}  # fmt: skip


def result(folder, name, profile="laptop", variant="", headline=(), **row):
    rows = pd.DataFrame([{"method": "PudNet", "metric": "top-1", "mean": 50.0, "low": 48.0, "high": 52.0, **row}])
    stem = ".".join(filter(None, [name, profile, variant]))
    folder.mkdir(parents=True, exist_ok=True)
    svg = (
        '<svg width="9pt" height="9pt"><g id="a" clip-path="url(#c)" style="fill: #000000"/><text x="1">t</text></svg>'
    )
    (folder / f"{stem}.plot.svg").write_text(svg)
    figures = [{"name": "plot", "alt": 'Dots, "many" of them', "file": f"{stem}.plot.svg"}]
    write_result(
        folder / f"{stem}.json", name, f"Does {name} work?", "Yes: 50 %.", rows, FACTS, headline,
        profile=profile, variant=variant, figures=figures,
    )  # fmt: skip


def test_an_empty_project_has_a_page_that_says_so(project):
    text = build_site().read_text()
    assert "There is no result yet" in text
    assert "74.56" in text
    assert "2,305 ×" in text


def test_cards_follow_the_notebooks_and_the_largest_profile_leads(project, notebook):
    notebook("01_zeta")
    notebook("02_alpha")
    folder = project / "reports" / "results"
    for name in ("alpha", "zeta", "benchmarks"):
        result(folder, name)
    result(folder, "alpha", "paper")
    result(folder, "alpha", "paper", "width=3")
    text = build_site().read_text()
    assert re.findall(r'<article class="card" id="(\w+)"', text) == ["zeta", "alpha", "benchmarks"]
    alpha = text[text.index('id="alpha"') :]
    assert "2 further runs" in alpha
    assert alpha.index("<strong>laptop:") < alpha.index("<strong>paper, width=3:")
    assert "a &lt;laptop&gt;" in text
    assert "1 min 15 s" in text or "75 s" in text
    # README: the same results give the same text.
    assert (project / "reports" / "README.md").read_text() == readme_text(project)
    assert "| PudNet | top-1 | 50.0 ± 2.0 |" in readme_text(project)
    assert "![Dots" in readme_text(project)


def test_nothing_on_the_page_needs_a_script_or_a_request(project):
    result(project / "reports" / "results", "alpha")
    text = build_site().read_text()
    assert "<script" not in text
    assert not re.search(r'(src|href)="(https?:)?//', text)
    assert "default-src 'none'" in text
    assert 'aria-label="Dots, &quot;many&quot; of them"' in text


def test_smoke_runs_have_a_report_of_their_own(project):
    result(project / "reports" / "runs" / "smoke" / "01_alpha" / "results", "alpha", "smoke")
    page = build_site("smoke")
    assert page == project / "reports" / "runs" / "smoke" / "index.html"
    assert 'id="alpha"' in page.read_text()
    assert not (project / "reports" / "README.md").exists()


def test_a_failed_run_is_shown_with_its_executed_copy(project):
    import dataclasses
    import json

    folder = project / "reports" / "runs" / "laptop" / "03_broken"
    folder.mkdir(parents=True)
    run = Run("03_broken", "laptop", "", "failed", "ValueError: <b>", 3.0, 99.0, 1, "d", {}, "c", "now")
    (folder / "run.json").write_text(json.dumps(dataclasses.asdict(run)))
    made = v4.new_notebook(cells=[v4.new_code_cell("1 / 0")])
    made.cells[0].outputs = [v4.new_output("error", ename="ValueError", evalue="<b>", traceback=["Trace"])]
    nbformat.write(made, folder / "executed.ipynb")
    text = build_site().read_text()
    assert "ValueError: &lt;b&gt;" in text
    assert 'href="site/laptop/03_broken.html"' in text
    assert "Trace" in (project / "reports" / "site" / "laptop" / "03_broken.html").read_text()


def test_the_headline_puts_measured_lines_under_their_claim(project):
    from pudnet_lib.results import Headline

    folder = project / "reports" / "results"
    result(folder, "alpha", headline=[
        Headline("ours", "top-5, %", 40, 100, 38, 0.5, 2.5, (39, 41), (35, 39), "imagenet"),
        Headline("other", "top-1, %", 40, 100, 38, 0, 2.5),
    ])  # fmt: skip
    from pudnet_lib.results import read_results

    lines = cards.headline_lines(read_results(folder))
    assert [line["setting"] for line in lines] == [CLAIMS[0]["setting"], CLAIMS[1]["setting"], "ours", "other"]
    assert lines[2]["scratch"] == "40.0 ± 1.0"
    assert lines[2]["predicted"] == "38 (35 to 39)"
    assert lines[2]["ratio"] == "200 ×"
    assert lines[3]["ratio"] == "—"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (0.0, "0"),
        (5, "5"),
        (0.05, "0.050"),
        (12345.6, "12,346"),
        (74.56, "74.56"),
        (0.00001, "1e-05"),
        (-3.25, "-3.250"),
    ],
)
def test_numbers(value, text):
    assert cards.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "—"), (0.05, "0.05 s"), (9.96, "10 s"), (75, "75 s"), (190, "3 min 10 s"), (7500, "2 h 5 min")],
)
def test_times(value, text):
    assert cards.seconds(value) == text


def test_rows_leave_out_empty_columns_and_write_intervals():
    rows = [{"metric": "m", "mean": 0.1234, "low": 0.12, "high": 0.1268, "n": 3, "chance": None, "kind": "x"}]
    columns, cells = cards.rows_as_text(rows)
    assert [c["label"] for c in columns] == ["Metric", "Mean ± 95 %", "n", "kind"]
    assert cells == [["m", "0.123 ± 0.003", "3", "x"]]
    assert cards.memory(None) == "—"


def test_inline_figures_have_ids_of_their_own_and_the_pages_ink():
    text = '<svg width="9pt" height="8pt" ><style>*{}</style><g id="a"/><use href="#a"/><g clip-path="url(#b)"/></svg>'
    made = cards.inline_svg(text, "A & B", "one.two")
    assert 'id="one-two-a"' in made
    assert 'href="#one-two-a"' in made
    assert "url(#one-two-b)" in made
    assert "<style" not in made
    assert 'aria-label="A &amp; B"' in made
    assert 'width="9pt"' not in made


def test_formulas_become_mathml_outside_code():
    made = pages.formulas("<p>$a_t$ costs <code>$5 or $6</code> $$x^2$$</p>")
    assert made.count("<math") == 2
    assert "<code>$5 or $6</code>" in made
    assert pages.formulas(r"$\frac{$") == r"$\frac{$"


def test_widgets_appear_as_the_picture_they_showed(tmp_path):
    view = {pages.WIDGET_VIEW: {"model_id": "box"}, "text/plain": "VBox()"}
    made = v4.new_notebook(cells=[v4.new_code_cell("panel"), v4.new_code_cell("js")])
    made.cells[0].outputs = [v4.new_output("display_data", view)]
    made.cells[1].outputs = [
        v4.new_output("display_data", {"text/html": "<script src='https://cdn'></script>", "text/plain": "plain"}),
        v4.new_output("display_data", {"application/javascript": "alert(1)"}),
    ]
    state = {
        "box": {"model_name": "VBoxModel", "state": {"children": ["IPY_MODEL_image", "IPY_MODEL_box"]}},
        "image": {"model_name": "ImageModel", "state": {}, "buffers": [{"path": ["value"], "data": "UE5H"}]},
    }
    made.metadata["widgets"] = {pages.WIDGET_STATE: {"state": state}}
    path = tmp_path / "executed.ipynb"
    nbformat.write(made, path)
    body = pages.notebook_body(path)
    assert "data:image/png;base64,UE5H" in body
    assert "VBox()" not in body
    assert "<script" not in body
    assert "plain" in body
    assert "alert" not in body
