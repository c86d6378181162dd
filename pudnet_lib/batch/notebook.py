"""What the kit reads from a notebook file, and how it cleans one: title, question, parameters, outputs."""

import ast
import base64
import contextlib
import io
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import nbformat
from PIL import Image

from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.files import write_atomically
from pudnet_lib.profiles import checked

#: Names that the annotations of a parameters cell may use.
TYPES: dict[str, Any] = {t.__name__: t for t in (int, float, str, bool, list, dict, tuple)} | {"Literal": Literal}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
MAX_BYTES = 600_000
#: Text that only a run's time or place explains.
PROGRESS = re.compile(r"\d+%\||\bit/s\b|\bs/it\b|: \d+ ?%|\r")


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook file."""
    try:
        return nbformat.read(path, as_version=4)  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise PudNetError(f"There is no notebook {path}.") from None
    except (nbformat.reader.NotJSONError, ValueError, KeyError, AttributeError, nbformat.ValidationError) as error:
        raise PudNetError(f"{path} is no notebook ({str(error)[:80]}).") from None


def write_notebook(path: Path, notebook: nbformat.NotebookNode) -> None:
    """Write a notebook file atomically, as Jupyter does: indented by one, with a newline at the end."""
    write_atomically(path, (nbformat.writes(notebook) + "\n").encode())


def experiment_id(path: Path) -> str:
    """Name the experiment of a notebook: its file name without the number, ``02_intra_dataset`` → ``intra_dataset``."""
    return re.sub(r"^\d+[a-z]?_", "", path.stem)


def parameters_cell(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """Find the cell tagged ``parameters``."""
    return next((cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())), None)


def declared_parameters(path: Path) -> dict[str, Any]:
    """List the parameters of a notebook with their types."""
    notebook = read_notebook(path)
    if (cell := parameters_cell(notebook)) is None:
        remedy = "add the tag in JupyterLab's property inspector"
        raise PudNetError(f"{path.name} has no cell tagged 'parameters'; {remedy}.")
    where = f"{path.name}, cell {notebook.cells.index(cell) + 1} (parameters)"
    try:
        body = ast.parse(cell.source).body
    except SyntaxError as error:
        if magic := re.search(r"^\s*[%!].*$", cell.source, re.MULTILINE):
            raise PudNetError(f"{where}: {magic[0].strip()!r} is no Python; move it to another cell.") from None
        said = f"line {error.lineno}: {(error.text or '').strip()!r} is no Python ({error.msg})"
        raise PudNetError(f"{where}, {said}; write `name: type = value`.") from None
    found: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = _annotated(node.annotation)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = None
            with contextlib.suppress(ValueError):
                value = ast.literal_eval(node.value)
            found[node.targets[0].id] = Any if value is None else type(value)
        elif isinstance(node, ast.Assign):
            raise PudNetError(f"{where}: {ast.unparse(node)!r} sets no single name; write `name: type = value`.")
    return found


def _annotated(node: ast.expr) -> Any:
    """Turn an annotation into a type; ``Any`` where it is none that a parameter can have."""
    names = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    if names <= set(TYPES) and not any(isinstance(part, ast.Call | ast.Attribute) for part in ast.walk(node)):
        with contextlib.suppress(TypeError):
            return eval(compile(ast.Expression(node), "annotation", "eval"), {"__builtins__": {}}, TYPES)
    return Any


def check_parameters(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check parameters against a notebook before it runs."""
    declared, injected = declared_parameters(path), {}
    for name, value in given.items():
        if name in declared:
            injected[name] = checked(f"{name} of {path.name}", value, declared[name])
        elif name != "profile":
            raise unknown_name(f"parameter of {path.name}", name, declared)
    return injected


def strip(notebook: nbformat.NotebookNode) -> bool:
    """Remove what a run leaves behind: outputs, execution counts, widget state, the machine's kernel and versions."""
    before = nbformat.writes(notebook)
    language = notebook.metadata.get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise PudNetError(f"This is a notebook in {language}; the kit cleans those in Python only.")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        for key in ("papermill", "execution", "ExecuteTime", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
    facts = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    facts |= {"language_info": {"name": "python"}} | {k: v for k, v in notebook.metadata.items() if k == "jupytext"}
    notebook.update(nbformat.from_dict({"metadata": facts, "nbformat": 4, "nbformat_minor": 5}))
    return bool(before != nbformat.writes(notebook))


def strip_file(path: Path) -> bool:
    """Strip a notebook file in place, atomically; see ``strip``."""
    notebook = read_notebook(path)
    if changed := strip(notebook):
        write_notebook(path, notebook)
    return changed


def with_outputs(path: Path, executed: nbformat.NotebookNode, root: Path) -> nbformat.NotebookNode:
    """Put the cleaned outputs of an executed copy into the notebook that it was made from."""
    made = read_notebook(path)
    strip(made)
    outputs = {cell.id: cell.get("outputs", []) for cell in executed.cells}
    # Counted from 1, whatever was run before: nbval refuses outputs of a cell that says it was never run.
    for count, cell in enumerate((cell for cell in made.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
        cell.outputs = [o for output in outputs.get(cell.id, []) if (o := _cleaned(output, root, count)) is not None]
    size = len(nbformat.writes(made).encode())
    if size > MAX_BYTES:
        largest = max((c for c in made.cells if c.cell_type == "code"), key=lambda cell: len(json.dumps(cell.outputs)))
        found = f"With its outputs {path.name} takes {size / 1000:.0f} kB; expected at most {MAX_BYTES / 1000:.0f} kB"
        which = f"those of the cell that starts with {largest.source.splitlines()[0]!r}"
        raise PudNetError(f"{found}. The largest are {which}: draw it smaller.")
    return made


def _cleaned(output: nbformat.NotebookNode, root: Path, count: int) -> nbformat.NotebookNode | None:
    if output.output_type == "stream":
        kept = [line for line in output.text.splitlines(keepends=True) if not PROGRESS.search(line)]
        output.text = _placeless("".join(kept), root)
        return output if output.name == "stdout" and output.text.strip() else None
    if output.output_type == "execute_result":
        output.execution_count = count
    data = output.get("data", {})
    if WIDGET_VIEW in data or "application/javascript" in data:
        return None
    if "image/png" in data:
        data["image/png"] = _small(data["image/png"])
        for other in ("image/svg+xml", "text/html"):
            data.pop(other, None)
    for kind, value in data.items():
        if kind.startswith("text/"):
            data[kind] = _placeless(value, root)
    return output


def _placeless(text: str, root: Path) -> str:
    places = {str(root): ".", sys.prefix: "ENVIRONMENT", str(Path.home()): "~"}
    for place in sorted((p for p in places if len(p) > 1), key=len, reverse=True):
        text = re.sub(rf"{re.escape(place)}(?=[/\s'\":,]|$)", places[place], text)
    text = re.sub(r"(?<![\w./])/(?:tmp|home|root|Users|private|var|work|mnt|opt)/(?:[\w.+-]+/)*", "", text)
    return re.sub(r"\b0x[0-9a-f]{6,16}\b", "0x0", text)


def _small(picture: str) -> str:
    """Reduce a PNG (base64) to 256 colours where that makes it smaller."""
    content, buffer = base64.b64decode(picture), io.BytesIO()
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    flat.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(min(content, buffer.getvalue(), key=len)).decode()
