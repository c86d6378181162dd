"""Executed notebooks as light, self-contained HTML: no script, nothing loaded from elsewhere.

Our choice; the paper has no counterpart. nbconvert's bare template gives the cells, our style sheet the look. Widgets
appear as the picture that they showed last, formulas as MathML, which browsers draw without help.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import pass_context
from latex2mathml.converter import convert as to_mathml
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


def code_css() -> str:
    """Make the style sheet of highlighted code, light and dark."""
    light = HtmlFormatter(style="friendly", nobackground=True).get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark", nobackground=True).get_style_defs(".highlight")
    css = f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"
    return re.sub(r"^\s*pre \{[^}]*\}$", "", css, flags=re.MULTILINE)


def notebook_body(path: Path) -> str:
    """Render an executed notebook's cells as HTML.

    Args:
        path: The notebook.

    Returns:
        HTML without head, scripts or links to other servers' files.
    """
    notebook = nbformat.read(path, as_version=4)
    draw_widgets(notebook)
    # The page says itself that the run failed.
    notebook.cells = [c for c in notebook.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", ())]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = str(number)  # the cell that papermill puts in has a random one
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for kind in ("application/javascript", "text/latex"):
                data.pop(kind, None)
            if "data" in output and not data:
                data["text/plain"] = "(a script, left out)"
            if "text/html" in data and re.search(r"<(script|iframe|link)\b", data["text/html"], re.IGNORECASE):
                data.pop("text/html")  # the plain text stays
    exporter = _Exporter(template_name="basic")  # type: ignore[no-untyped-call]
    body, _ = exporter.from_notebook_node(notebook)
    return str(body)


class _Exporter(HTMLExporter):
    """nbconvert's exporter with formulas as MathML."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        return formulas(super().markdown2html(context, source))


def formulas(markup: str) -> str:
    """Turn ``$…$`` and ``$$…$$`` outside code into MathML; what cannot be read stays as it is.

    Args:
        markup: HTML made from Markdown.

    Returns:
        The changed HTML.
    """

    def draw(match: re.Match[str]) -> str:
        display, inline = match[1], match[2]
        try:
            return str(to_mathml(html.unescape(display or inline), display="block" if display else "inline"))
        except Exception:  # the library raises many kinds, and no formula is worth a lost page
            return match[0]

    parts = re.split(r"(<(?:pre|code)\b.*?</(?:pre|code)>)", markup, flags=re.DOTALL)
    pattern = r"\$\$(.+?)\$\$|(?<![\w$\\])\$(\S(?:[^$\n]*?\S)?)\$(?![\w$])"
    return "".join(part if i % 2 else re.sub(pattern, draw, part, flags=re.DOTALL) for i, part in enumerate(parts))


def draw_widgets(notebook: nbformat.NotebookNode) -> None:
    """Replace each widget's output by the pictures that it showed last, in place."""
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for cell in notebook.cells:
        drawn = []
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(WIDGET_VIEW)
            if view is None:
                drawn.append(output)
                continue
            text = "<p class='interactive'>Interactive in JupyterLab; this is its first state.</p>"
            drawn.append(nbformat.v4.new_output("display_data", {"text/html": text}))
            drawn += [
                nbformat.v4.new_output("display_data", {"image/png": picture})
                for picture in _pictures(state, view["model_id"], set())
            ]
        if "outputs" in cell:
            cell.outputs = drawn
    notebook.metadata.pop("widgets", None)


def _pictures(state: dict[str, Any], model: str, seen: set[str]) -> list[str]:
    """Collect the PNG data (base64) of a widget and of its children."""
    if model in seen or model not in state:
        return []
    seen.add(model)
    entry = state[model]
    own = []
    if entry.get("model_name") == "ImageModel":
        own = [buffer["data"] for buffer in entry.get("buffers", []) if buffer["path"] == ["value"]]
    children = [child.removeprefix("IPY_MODEL_") for child in entry.get("state", {}).get("children", [])]
    return own + [picture for child in children for picture in _pictures(state, child, seen)]
