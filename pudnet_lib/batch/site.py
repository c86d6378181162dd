"""The report: one page, the executed notebooks beside it, and reports/README.md; nothing is loaded from elsewhere.

The page's one script is named by its hash in a policy that forbids all else; whatever is put in is cleaned before.
"""

import base64
import hashlib
import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
import nh3
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context, select_autoescape
from latex2mathml.converter import convert as to_mathml
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter

from pudnet_lib.batch.notebook import WIDGET_VIEW, experiment_id, read_notebook
from pudnet_lib.batch.reproduce import all_notebooks, read_runs
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import write_atomically
from pudnet_lib.profiles import PROFILE_NAMES
from pudnet_lib.results import below, duration, number, project_root, read_result, with_interval

TEMPLATES = Path(__file__).parent / "templates"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
#: A table: columns (``label``, ``numeric``), and rows of cells (text, what sorts).
Table = tuple[list[dict[str, Any]], list[list[tuple[str, Any]]]]


@cache
def words(kind: str) -> Any:
    """Read what the pages say: ``glossary``, the paper's ``claims``, ``labels`` of columns, ``allowed`` markup."""
    return json.loads((TEMPLATES / f"{kind}.json").read_text(encoding="utf-8"))


def clean(markup: str) -> str:
    """Leave of some HTML what shows, and nothing that acts, asks or loads."""
    links = {"a": {"href"}, "img": {"src"}, "use": {"href", "xlink:href"}, "image": {"href", "xlink:href"}}

    def keep(tag: str, name: str, value: str) -> str | None:
        if name in ("src", "href", "xlink:href"):
            picture = value.startswith(("data:image/png", "data:image/jpeg", "data:image/gif", "data:image/svg+xml;"))
            link = tag == "a" and not value.lower().startswith(("data:", "javascript:", "file:"))
            return value if value.startswith("#") or (picture and tag != "a") or link else None
        acts = name == "style" and re.search(r"url\((?!['\"]?#)|@import|expression|position\s*:", value, re.IGNORECASE)
        return None if acts else value

    return nh3.clean(
        markup, tags=nh3.ALLOWED_TAGS | set(words("allowed")["tags"]), attribute_filter=keep,
        clean_content_tags={"script", "style", "iframe", "object"}, link_rel="noopener noreferrer",
        attributes={"*": set(words("allowed")["attributes"]), **links}, url_schemes={"http", "https", "mailto", "data"},
    )  # fmt: skip


def rich(text: str) -> str:
    """Turn an answer or question (Markdown) into clean HTML; the first use of each glossary word explains itself."""
    markup = clean(formulas(str(markdown2html(text))))
    not_there = r"(<(?:abbr|code|a|math|h\d)\b.*?</(?:abbr|code|a|math|h\d)>|<[^>]+>)"  # explained, code, tags
    for term, meaning in sorted(words("glossary").items(), key=lambda item: -len(item[0])):
        parts = re.split(not_there, markup, flags=re.DOTALL)
        for place in range(0, len(parts), 2):
            if match := re.search(rf"(?<!\w){re.escape(term)}(?!\w)", parts[place]):
                explained = f'<abbr title="{html.escape(meaning)}">{term}</abbr>'
                parts[place] = parts[place][: match.start()] + explained + parts[place][match.end() :]
                break
        markup = "".join(parts)
    return markup


def first_sentence(text: str, longest: int = 240) -> str:
    """Take the first sentence of a Markdown text, cut at a clause where it is very long."""
    sentence = re.split(r"(?<=[.!?])\s+(?=[A-Z*_`(])", " ".join(text.split()), maxsplit=1)[0]
    if len(sentence) <= longest:
        return sentence
    cut = next((at for mark in ("; ", " ") if (at := sentence.rfind(mark, 0, longest)) > 0), longest)
    return f"{sentence[:cut]} …"


def formulas(markup: str) -> str:
    """Turn ``$…$`` and ``$$…$$`` outside code into MathML; what cannot be read stays as it is."""

    def draw(match: re.Match[str]) -> str:
        try:
            return str(to_mathml(html.unescape(match[1] or match[2]), display="block" if match[1] else "inline"))
        except Exception:  # the library raises many kinds, and no formula is worth a lost page
            return match[0]

    parts = re.split(r"(<(?:pre|code)\b.*?</(?:pre|code)>)", markup, flags=re.DOTALL)
    pattern = r"\$\$(.+?)\$\$|(?<![\w$\\])\$(\S(?:[^$\n]*?\S)?)\$(?![\w$])"
    return "".join(part if i % 2 else re.sub(pattern, draw, part, flags=re.DOTALL) for i, part in enumerate(parts))


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        return formulas(super().markdown2html(context, source))


def notebook_body(path: Path) -> str:
    """Render an executed notebook's cells as clean HTML; widgets appear as the pictures that they showed last."""
    notebook = read_notebook(path)
    state = notebook.metadata.pop("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    # The page says itself that the run failed.
    notebook.cells = [c for c in notebook.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", ())]
    for place, cell in enumerate(notebook.cells):
        cell["id"] = str(place)  # the cell that papermill puts in has a random one
        if "outputs" in cell:
            cell.outputs = [shown for output in cell.outputs for shown in _shown(output, state)]
    body, _ = _Exporter(template_name="basic").from_notebook_node(notebook)  # type: ignore[no-untyped-call]
    return clean(str(body))


def _shown(output: nbformat.NotebookNode, state: Mapping[str, Any]) -> list[nbformat.NotebookNode]:
    data = output.get("data", {})
    if WIDGET_VIEW in data:
        pictures = _pictures(state, str(data[WIDGET_VIEW].get("model_id", "")), set())
        return [nbformat.v4.new_output("display_data", {"image/png": picture}) for picture in pictures]
    if "image/svg+xml" in data:  # as a picture, in which no script runs
        data["text/html"] = f'<img src="{_uri(data.pop("image/svg+xml").encode(), "svg+xml")}">'
    for kind in ("application/javascript", "text/latex"):
        data.pop(kind, None)
    if "data" in output and not data:
        data["text/plain"] = "(a script, left out)"
    if re.search(r"<(script|iframe|link)\b", data.get("text/html", ""), re.IGNORECASE):
        data.pop("text/html")  # the plain text stays
    return [] if output.get("name") == "stderr" else [output]  # bars and warnings; the run's log keeps them


def _uri(content: bytes, kind: str, family: str = "image") -> str:
    return f"data:{family}/{kind};base64,{base64.b64encode(content).decode()}"


def _pictures(state: Mapping[str, Any], model: str, seen: set[str]) -> list[str]:
    """Collect the PNG data (base64) of a widget and of its children."""
    if model in seen or model not in state:
        return []
    seen.add(model)
    entry, own = state[model], []
    if entry.get("model_name") == "ImageModel":
        own = [buffer["data"] for buffer in entry.get("buffers", []) if buffer["path"] == ["value"]]
    children = [str(child).removeprefix("IPY_MODEL_") for child in entry.get("state", {}).get("children", [])]
    return own + [picture for child in children for picture in _pictures(state, child, seen)]


def inline_figure(path: Path, alternative: str, name: str) -> str:
    """Make a figure's file fit into a page: PNG as it is; SVG cleaned, with unique ids and the page's ink."""
    label = html.escape(alternative)
    if path.suffix == ".png":
        return f'<img src="{_uri(path.read_bytes(), "png")}" alt="{label}">'
    prefix, text = re.sub(r"[^A-Za-z0-9_-]", "-", name), clean(path.read_text(encoding="utf-8"))
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"(fill|stroke): ?(?:#000000|black)", r"\1: currentColor", text)
    text = re.sub(r"font-family: [^;\"]*|(?<=[\d.]px) '[^;\"]*", "inherit", text)
    start = f'<svg role="img" aria-label="{label}" fill="currentColor" stroke-linejoin="round"'
    return re.sub(r'(<svg\b[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text.replace("<svg", start, 1), count=1)


def rows_as_text(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Lay rows out as a table of the columns that hold something."""
    labels, named = words("labels"), dict.fromkeys(key for row in rows for key in row)
    order = dict.fromkeys([*(k for k in labels if k in named), *(k for k in named if k not in ("low", "high"))])
    keys = [key for key in order if any(row.get(key) is not None for row in rows)]
    numeric = [not any(isinstance(row.get(key), str | bool) for row in rows) for key in keys]
    columns = [{"label": labels.get(k, k.replace("_", " ")), "numeric": n} for k, n in zip(keys, numeric, strict=True)]
    return columns, [[(_cell(row, key), row.get(key)) for key in keys] for row in rows]


def _cell(row: Mapping[str, Any], key: str = "mean") -> str:
    if key == "mean":
        return with_interval(row["mean"], row.get("low"), row.get("high"))
    value = row.get(key)
    return ("yes" if value else "no") if isinstance(value, bool) else value if isinstance(value, str) else number(value)


def by_source(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Pivot rows: one column a dataset; None where there is one dataset, or a cell would hold two numbers."""
    sources = list(dict.fromkeys(row["dataset"] for row in rows if row.get("dataset")))
    names = [(row.get("method") or "—", row["metric"]) for row in rows]
    found = {(*name, row.get("dataset")): (_cell(row), row["mean"]) for name, row in zip(names, rows, strict=True)}
    if not 2 <= len(sources) <= 8 or len(found) < len(rows):
        return None
    columns = [{"label": label, "numeric": label in sources} for label in ("Method", "Metric", *sources)]
    cells = {name: [found.get((*name, source), ("", None)) for source in sources] for name in names}
    return columns, [[*((word, word) for word in name), *line] for name, line in cells.items()]


def headline_lines(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Put the measured headlines under the paper's claims that they stand beside."""
    measured = []
    for result in results:
        where = (result["title"], result["profile"], result["variant"], result["provenance"]["device"])
        for line in result["headline"]:
            took = line["predicted_seconds"]
            ratio = float(f"{line['scratch_seconds'] / took:.2g}") if took else None
            sides = {s: with_interval(line[s], *(line.get(f"{s}_interval") or ())) for s in ("scratch", "predicted")}
            measured.append({
                "claim": line.get("claim", ""), "claimed": False, "setting": line["setting"], "metric": line["metric"],
                "source": f"measured here: {', '.join(part for part in where if part)}", **sides,
                "scratch_seconds": duration(line["scratch_seconds"]), "predicted_seconds": duration(took),
                "ratio": f"{number(ratio)} ×" if ratio else "—", "chance": number(line["chance"]),
            })  # fmt: skip
    claims = [{**claim, "claimed": True} for claim in words("claims")]
    order = [*(claim["claim"] for claim in claims), ""]
    return sorted(claims + measured, key=lambda line: order.index(line["claim"]))  # stable: a claim leads its lines


def cards(results: Sequence[dict[str, Any]], notebooks: Sequence[Path]) -> list[dict[str, Any]]:
    """Put results together by experiment, in the notebooks' order; the largest profile without variant is ``main``."""
    order = [experiment_id(path) for path in notebooks]

    def rank(result: dict[str, Any]) -> tuple[Any, ...]:
        name, profile = result["experiment"], ("", *PROFILE_NAMES).index(result["profile"])
        place = order.index(name) if name in order else len(order)
        return place, name, bool(result["variant"]), -profile, result["variant"]

    groups = groupby(sorted(results, key=rank), key=lambda result: result["experiment"])
    return [{"main": main, "others": others, "notebook": name in order} for name, (main, *others) in groups]


def _fill(template: str, **given: Any) -> bytes:
    escape, loader = select_autoescape(["html"]), FileSystemLoader(TEMPLATES)
    environment = Environment(autoescape=escape, loader=loader, undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {"seconds": duration, "rich": rich, "sentence": first_sentence}
    environment.globals |= {"table": rows_as_text, "pivot": by_source}
    return environment.get_template(template).render(**given).encode()


def build_site(profile: str = "laptop", runs_dir: Path | None = None) -> tuple[Path, list[str]]:
    """Build the report; nothing that is committed is touched. Gives its page, and a line for all that is damaged."""
    root, smoke = project_root(), profile == "smoke"
    runs_dir = runs_dir or root / "reports" / "runs"
    out = runs_dir / "smoke" if smoke else root / "reports"
    css, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("site.css", "site.js"))
    styles = (HtmlFormatter(style=name, nobackground=True) for name in ("friendly", "github-dark"))
    light, dark = (style.get_style_defs(".highlight") for style in styles)
    code_css = f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"
    look: Any = {"css": css, "code_css": re.sub(r"^\s*pre \{[^}]*\}$", "", code_css, flags=re.MULTILINE)}
    pages: dict[str, str] = {}
    committed = () if smoke else (root / "reports" / "results").glob("*.json")
    damaged, failed, sources = [], [], {path.name: path for path in committed}
    runs = [found for name in (["smoke"] if smoke else PROFILE_NAMES[1:]) for found in read_runs(runs_dir / name)]
    for folder, run in runs:
        link = f"site/{run.profile}/{run.name}.html"
        try:
            body = notebook_body(folder / "executed.ipynb")
            write_atomically(below(out, link), _fill("notebook.html", **look, run=run, body=body))
        except PudNetError as error:
            link = ""
            damaged.append(f"{error} `pudnet reproduce` runs it again.".replace(f"{root}/", ""))
        found = {path.name: path for path in (folder / "results").glob("*.json")}
        pages |= dict.fromkeys(found, link)
        if run.status == "ok":
            sources |= found
        else:
            failed.append({**vars(run), "page": link})
    results = []
    for name, path in sorted(sources.items()):
        try:
            results.append(_prepare(path, pages.get(name, ""), out))
        except (PudNetError, OSError, UnicodeDecodeError) as error:
            damaged.append(f"{error} It was left out.".replace(f"{root}/", ""))
    grouped = cards(results, all_notebooks(root / "notebooks"))
    lines = headline_lines([r for card in grouped for r in (card["main"], *card["others"])])
    look |= {"script": script, "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}
    look |= {"cards": grouped, "headline": lines, "failed": failed, "damaged": damaged, "glossary": words("glossary")}
    write_atomically(out / "index.html", _fill("index.html", **look))
    return out / "index.html", damaged


def write_readme(root: Path) -> Path:
    """Write ``reports/README.md`` from the committed results; the same results give the same text."""
    write_atomically(root / "reports" / "README.md", readme_text(root).encode())
    return root / "reports" / "README.md"


def readme_text(root: Path) -> str:
    """Make the text of ``reports/README.md``: headline, answers, one figure each, links."""
    notebooks = {experiment_id(path): path.name for path in all_notebooks(root / "notebooks")}
    paths = sorted((root / "reports" / "results").glob("*.json"))
    tables = [path.with_suffix(".csv").exists() and f"{path.stem}.csv" for path in paths]
    results = [{**read_result(p), "json": p.name, "csv": csv} for p, csv in zip(paths, tables, strict=True)]
    grouped = cards(results, all_notebooks(root / "notebooks"))
    lines = headline_lines([card["main"] for card in grouped])
    text = _fill("readme.md", cards=grouped, headline=lines, notebooks=notebooks).decode()
    return re.sub(r"[ \t]+$", "", re.sub(r"\n{3,}", "\n\n", text), flags=re.MULTILINE).rstrip() + "\n"


def _prepare(path: Path, page: str, out: Path) -> dict[str, Any]:
    """Read a result and add what the page needs: tables, drawings, CSV, link."""
    result = read_result(path)
    drawings = []
    for figure in result["figures"]:
        file = below(path.parent, figure["file"])
        drawn = inline_figure(file, figure["alt"], Path(figure["file"]).stem)
        drawings.append({"drawn": drawn, "alt": figure["alt"], "link": os.path.relpath(file, out)})
    csv = _uri(pd.DataFrame(result["rows"]).to_csv(index=False).encode(), "csv", "text")
    return {**result, "page": page, "drawings": drawings, "stem": path.stem, "csv": csv}
