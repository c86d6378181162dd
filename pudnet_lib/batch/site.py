"""The report: one static page, the executed notebooks beside it, and reports/README.md; all self-contained.

Our choice; the paper has no counterpart. The page has no script and a policy that forbids any request.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from pudnet_lib.batch import cards
from pudnet_lib.batch.batch import read_runs
from pudnet_lib.batch.pages import code_css, notebook_body
from pudnet_lib.batch.places import project_root
from pudnet_lib.results import atomic_write, read_result

TEMPLATES = Path(__file__).parent / "templates"


def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    environment.filters |= {"seconds": cards.seconds, "memory": cards.memory}
    return environment


def build_site(profile: str = "laptop", runs_dir: Path | None = None, out: Path | None = None) -> Path:
    """Build the report.

    Args:
        profile: Laptop and paper: the committed results with the runs that are here, ``reports/index.html`` and
            ``reports/README.md``. Smoke: the smoke runs' own results, beside them, nothing committed is touched.
        runs_dir: Where runs are kept, by default ``reports/runs``.
        out: The page's folder, by default ``reports``, or the smoke runs' folder.

    Returns:
        The page.
    """
    root = project_root()
    runs_dir = runs_dir or root / "reports" / "runs"
    smoke = profile == "smoke"
    out = out or (runs_dir / "smoke" if smoke else root / "reports")
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    environment, css = _templates(), (TEMPLATES / "site.css").read_text(encoding="utf-8")

    pages, failed = _notebook_pages(environment, css, runs_dir, ["smoke"] if smoke else ["laptop", "paper"], out)
    sources = sorted((runs_dir / "smoke").glob("*/results/*.json")) if smoke else _committed(root)
    results = [_prepare(path, pages.get(path.name, "")) for path in sources]
    grouped = cards.episode_cards(results, notebooks)
    facts = {
        "cards": grouped,
        "headline": cards.headline_lines([r for card in grouped for r in (card["main"], *card["others"])]),
    }
    page = out / "index.html"
    atomic_write(page, environment.get_template("index.html").render(css=css, failed=failed, **facts))
    if not smoke and out == root / "reports":
        write_readme(root)
    return page


def write_readme(root: Path) -> Path:
    """Write ``reports/README.md`` from the committed results; the same results give the same text."""
    path = root / "reports" / "README.md"
    atomic_write(path, readme_text(root))
    return path


def readme_text(root: Path) -> str:
    """Make the text of ``reports/README.md``."""
    results = [_prepare(path, "") for path in _committed(root)]
    grouped = cards.episode_cards(results, sorted((root / "notebooks").glob("*.ipynb")))
    text = _templates().get_template("readme.md").render(cards=grouped, headline=_headline(grouped))
    return re.sub(r"[ \t]+$", "", re.sub(r"\n{3,}", "\n\n", text), flags=re.MULTILINE).rstrip() + "\n"


def _headline(grouped: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return cards.headline_lines([result for card in grouped for result in (card["main"], *card["others"])])


def _committed(root: Path) -> list[Path]:
    return sorted((root / "reports" / "results").glob("*.json"))


def _prepare(path: Path, page: str) -> dict[str, Any]:
    """Read a result and add what the templates need: columns, cells, drawings, link."""
    result = read_result(path)
    columns, cells = cards.rows_as_text(result["rows"])
    drawings = [
        cards.inline_svg((path.parent / figure["file"]).read_text(encoding="utf-8"), figure["alt"], figure["file"][:-4])
        for figure in result["figures"]
        if (path.parent / figure["file"]).exists()
    ]
    return {**result, "columns": columns, "cells": cells, "drawings": drawings, "page": page}


def _notebook_pages(
    environment: Environment, css: str, runs_dir: Path, profiles: list[str], out: Path
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Write a page a run; return result file name → page, and the failed runs with theirs."""
    template = environment.get_template("notebook.html")
    pages: dict[str, str] = {}
    failed = []
    for profile in profiles:
        for folder, run in read_runs(runs_dir / profile):
            if not (folder / "executed.ipynb").exists():
                link = ""
            else:
                link = f"site/{profile}/{run.name}.html"
                body = notebook_body(folder / "executed.ipynb")
                facts = {"title": run.name, "name": run.name, "run": run, "body": body, "home": "../../index.html"}
                atomic_write(out / link, template.render(css=css, code_css=code_css(), **facts))
            pages |= {result.name: link for result in (folder / "results").glob("*.json")}
            if run.status != "ok":
                failed.append({**vars(run), "page": link})
    return pages, failed
