from __future__ import annotations

import re

import nbformat
import pandas as pd
import pytest
from nbformat import v4

from pudnet_lib.batch import site
from pudnet_lib.batch.notebook import WIDGET_VIEW
from pudnet_lib.batch.reproduce import Run
from pudnet_lib.batch.site import build_site, readme_text, write_readme
from pudnet_lib.results import Headline, duration, number, read_results, with_interval, write_result

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
    text = build_site()[0].read_text()
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
    text = build_site()[0].read_text()
    assert re.findall(r'<article class="card" id="(\w+)"', text) == ["zeta", "alpha", "benchmarks"]
    alpha = text[text.index('<article class="card" id="alpha"') :]
    assert "2 further runs" in alpha
    assert alpha.index("<h4>laptop<") < alpha.index("<h4>paper, width=3<")
    assert "a &lt;laptop&gt;" in text
    assert not (project / "reports" / "README.md").exists()
    # README: the same results give the same text; answers and links, no tables of all numbers.
    readme = write_readme(project).read_text()
    assert readme == readme_text(project)
    assert "![Dots" in readme
    for link in ("results/zeta.laptop.json", "results/zeta.laptop.csv", "../notebooks/01_zeta.ipynb"):
        assert f"]({link})" in readme
    assert len(readme.encode()) < 30_000


def test_nothing_on_the_page_needs_a_request_and_its_one_script_is_named_by_its_hash(project):
    import base64
    import hashlib

    result(project / "reports" / "results", "alpha")
    text = build_site()[0].read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; form-action 'none'; base-uri 'none'" in text
    assert not re.search(r'(src|href)="(https?:)?//', text)
    assert "default-src 'none'" in text
    assert 'aria-label="Dots, &quot;many&quot; of them"' in text


def test_the_first_screen_says_what_was_found(project, notebook):
    notebook("01_zeta")
    notebook("02_alpha")
    folder = project / "reports" / "results"
    result(folder, "zeta")
    result(folder, "alpha", headline=[Headline("ours", "top-1, %", 40, 100, 38, 0.5, 25)])
    text = build_site()[0].read_text()
    first = text[text.index('id="minute"', text.index("<main>")) : text.index('id="headline"', text.index("<main>"))]
    assert first.count("Yes: 50 %.") == 2  # the one that the headline rests on first
    assert first.count("<svg") == 1
    assert "alpha-laptop-plot" in first


def test_the_new_result_of_a_run_stands_on_the_page_and_the_committed_one_is_left_alone(project, notebook):
    notebook("01_alpha")
    result(project / "reports" / "results", "alpha")
    before = (project / "reports" / "results" / "alpha.laptop.json").read_bytes()
    folder = project / "reports" / "runs" / "laptop" / "01_alpha"
    result(folder / "results", "alpha", mean=77.0, low=76.0, high=78.0)
    record(folder, "ok")
    text = build_site()[0].read_text()
    assert "77.0 ± 1.0" in text
    assert "50.0 ± 2.0" not in text
    assert (project / "reports" / "results" / "alpha.laptop.json").read_bytes() == before


def test_what_is_damaged_is_named_and_left_out(project, notebook):
    folder = project / "reports" / "results"
    result(folder, "alpha")
    (folder / "beta.laptop.json").write_text('{"schema"')
    run = project / "reports" / "runs" / "laptop" / "01_alpha"
    record(run, "ok")
    (run / "executed.ipynb").write_text("")
    page, damaged = build_site()
    assert [bool(re.search(word, line)) for word, line in zip(("executed", "beta"), damaged, strict=True)] == [
        True,
        True,
    ]
    assert "beta.laptop.json is no JSON file" in page.read_text()
    assert '<article class="card" id="alpha"' in page.read_text()


def record(folder, status, error=""):
    import dataclasses
    import json

    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder.name, folder.parent.name, "", status, error, 3.0, 99.0, 1, "d", {}, "c", "now")
    (folder / "run.json").write_text(json.dumps(dataclasses.asdict(run)))
    made = v4.new_notebook(cells=[v4.new_code_cell("1 / 0")])
    made.cells[0].outputs = [v4.new_output("error", ename="ValueError", evalue="<b>", traceback=["Trace"])]
    nbformat.write(made, folder / "executed.ipynb")


def test_smoke_runs_have_a_report_of_their_own(project):
    folder = project / "reports" / "runs" / "smoke" / "01_alpha"
    result(folder / "results", "alpha", "smoke")
    record(folder, "ok")
    page = build_site("smoke")[0]
    assert page == project / "reports" / "runs" / "smoke" / "index.html"
    assert 'id="alpha"' in page.read_text()
    assert not (project / "reports" / "README.md").exists()


def test_a_failed_run_is_shown_with_its_executed_copy(project):
    record(project / "reports" / "runs" / "laptop" / "03_broken", "failed", "ValueError: <b>")
    text = build_site()[0].read_text()
    assert "ValueError: &lt;b&gt;" in text
    assert 'href="site/laptop/03_broken.html"' in text
    assert "Trace" in (project / "reports" / "site" / "laptop" / "03_broken.html").read_text()


def test_the_headline_puts_measured_lines_under_their_claim(project):
    folder = project / "reports" / "results"
    result(folder, "alpha", headline=[
        Headline("ours", "top-5, %", 40, 100, 38, 0.5, 2.5, (39, 41), (35, 39), "imagenet"),
        Headline("other", "top-1, %", 40, 100, 38, 0, 2.5),
    ])  # fmt: skip
    lines = site.headline_lines(read_results(folder))
    assert [line["claimed"] for line in lines] == [True, True, False, False]
    assert [line["setting"] for line in lines[2:]] == ["ours", "other"]
    assert lines[2]["scratch"] == "40.0 ± 1.0"
    assert lines[2]["predicted"] == "38.0 (35.0 to 39.0)"
    assert [line["ratio"] for line in lines[2:]] == ["200 ×", "—"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"), (0.0, "0"), (5, "5"), (0.05, "0.050"), (12345.6, "12,346"), (74.56, "74.6"), (0.00001, "1e-05"),
        (-3.25, "-3.25"),
    ],
)  # fmt: skip
def test_numbers_have_one_rounding(value, text):
    assert number(value) == text
    if value and abs(value) > 1:
        assert with_interval(value, value - 0.5, value + 0.5).partition(" ")[0] in (text, f"{value:.2f}")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "—"), (0.05, "0.05 s"), (9.96, "10 s"), (75, "75 s"), (190, "3 min 10 s"), (7500, "2 h 5 min")],
)
def test_times(value, text):
    assert duration(value) == text


def test_rows_leave_out_empty_columns_and_write_intervals():
    rows = [{"metric": "m", "mean": 0.1234, "low": 0.12, "high": 0.1268, "n": 3, "chance": None, "kind": "x"}]
    columns, cells = site.rows_as_text(rows)
    assert [c["label"] for c in columns] == ["Metric", "Mean ± 95 %", "n", "kind"]
    assert [[text for text, _ in row] for row in cells] == [["m", "0.123 ± 0.003", "3", "x"]]


def test_tables_are_pivoted_by_source():
    rows = [{"method": m, "dataset": d, "metric": "top-1", "mean": 10.0 * i + j, "low": None, "high": None}
            for i, m in enumerate("ab") for j, d in enumerate(("x", "y"))]  # fmt: skip
    columns, cells = site.by_source(rows)
    assert [c["label"] for c in columns] == ["Method", "Metric", "x", "y"]
    assert [[text for text, _ in row] for row in cells] == [["a", "top-1", "0", "1"], ["b", "top-1", "10", "11"]]
    assert site.by_source(rows[:1]) is None
    assert site.by_source([*rows, rows[0]]) is None


def test_answers_are_markdown_with_words_explained_and_nothing_that_acts():
    text = site.rich(
        "**Yes**, 93 %. The shared network and *GC*. <script>x()</script><img src=x onerror=y()> [a](javascript:z)"
    )
    assert "<strong>Yes</strong>" in text
    assert '<abbr title="One set of weights' in text
    assert not re.search(r"script|onerror|x\(\)", text)
    assert site.first_sentence("Yes, 93.1 % of 4 (e.g. those). Then more.") == "Yes, 93.1 % of 4 (e.g. those)."
    assert len(site.first_sentence("word " * 200)) < 300


def test_inline_figures_have_ids_of_their_own_the_pages_ink_and_no_script(tmp_path):
    (tmp_path / "a.svg").write_text(
        '<svg width="9pt" height="8pt" viewBox="0 0 9 8">'
        '<style>*{}</style><script>x()</script><g id="a" onclick="y()"/>'
        '<use xlink:href="#a"/><use href="https://e.vil/x.svg#a"/><g clip-path="url(#b)"/><a href="javascript:z()"/>'
        "</svg>"
    )
    made = site.inline_figure(tmp_path / "a.svg", "A & B", "one.two")
    for part in ('id="one-two-a"', 'href="#one-two-a"', "url(#one-two-b)", 'aria-label="A &amp; B"', "viewBox"):
        assert part in made
    for part in ("<style", "script", "onclick", "e.vil", 'width="9pt"'):
        assert part not in made
    (tmp_path / "a.png").write_bytes(b"x")
    assert site.inline_figure(tmp_path / "a.png", "A & B", "p").startswith('<img src="data:image/png;base64,')


def test_formulas_become_mathml_outside_code():
    made = site.formulas("<p>$a_t$ costs <code>$5 or $6</code> $$x^2$$</p>")
    assert made.count("<math") == 2
    assert "<code>$5 or $6</code>" in made
    assert site.formulas(r"$\frac{$") == r"$\frac{$"


def test_widgets_appear_as_the_picture_they_showed_and_pages_are_clean(tmp_path):
    view = {WIDGET_VIEW: {"model_id": "box"}, "text/plain": "VBox()"}
    made = v4.new_notebook(cells=[v4.new_code_cell("panel"), v4.new_code_cell("js"), v4.new_markdown_cell(
        "<form action='https://e.vil'><input></form><a href='javascript:x()'>l</a> $a_t$ <base href='https://e.vil'>"
    )])  # fmt: skip
    made.cells[0].outputs = [v4.new_output("display_data", view)]
    made.cells[1].outputs = [
        v4.new_output("display_data", {"text/html": "<script src='https://cdn'></script>", "text/plain": "plain"}),
        v4.new_output("display_data", {"application/javascript": "alert(1)"}),
        v4.new_output("display_data", {"image/svg+xml": "<svg><script>alert(2)</script></svg>"}),
        v4.new_output("stream", name="stderr", text="epoch:  3%|#   | 1.2it/s"),
    ]
    state = {
        "box": {"model_name": "VBoxModel", "state": {"children": ["IPY_MODEL_image", "IPY_MODEL_box"]}},
        "image": {"model_name": "ImageModel", "state": {}, "buffers": [{"path": ["value"], "data": "UE5H"}]},
    }
    made.metadata["widgets"] = {site.WIDGET_STATE: {"state": state}}
    path = tmp_path / "executed.ipynb"
    nbformat.write(made, path)
    body = site.notebook_body(path)
    for part in ("data:image/png;base64,UE5H", "plain", "<math", "data:image/svg+xml;base64,"):
        assert part in body
    for part in ("VBox()", "<script", "alert", "<form", "<input", "<base", "javascript:", "it/s"):
        assert part not in body
