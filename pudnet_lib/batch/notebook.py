"""What the kit reads from a notebook file, and how it cleans one: title, parameters, outputs.

Our choice; the paper has no counterpart. Parameters are read by papermill; those it cannot read are an error, for they
would be injected unchecked.
"""

from __future__ import annotations

import ast
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.profiles import checked

#: Annotations that a parameters cell may use.
TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "list": list,
    "dict": dict,
    "tuple": tuple,
}


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook file.

    Raises:
        PudNetError: If it is missing or no notebook.
    """
    try:
        notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise PudNetError(f"There is no notebook {path}.") from None
    except (nbformat.reader.NotJSONError, json.JSONDecodeError, KeyError, nbformat.ValidationError) as error:
        raise PudNetError(f"{path} is no notebook ({str(error)[:80]}).") from None
    return notebook


def experiment_id(path: Path) -> str:
    """Name the experiment of a notebook: its file name without the number, ``02_intra_dataset`` → ``intra_dataset``."""
    return re.sub(r"^\d+[a-z]?_", "", path.stem)


def title_of(notebook: nbformat.NotebookNode, default: str = "") -> str:
    """Read the first heading of a notebook."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    heading = re.search(r"^#\s+(.+)$", text, re.MULTILINE)
    return heading[1].strip() if heading else default


def parameters_cell(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """Find the cell tagged ``parameters``."""
    tagged = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    return next(tagged, None)


def declared_parameters(path: Path) -> dict[str, Any]:
    """List the parameters of a notebook with their types.

    Args:
        path: The notebook.

    Returns:
        Name → type; ``Any`` where neither an annotation nor a literal default tells it.

    Raises:
        PudNetError: If no cell is tagged ``parameters``, or papermill cannot read a line of it.
    """
    from papermill import inspect_notebook

    notebook = read_notebook(path)
    cell = parameters_cell(notebook)
    if cell is None:
        raise PudNetError(
            f"{path.name} has no cell tagged 'parameters'; add the tag in JupyterLab's property inspector."
        )
    with tempfile.TemporaryDirectory() as folder:  # a stripped copy names a Python kernel, whatever the notebook names
        strip(notebook)
        copy = Path(folder) / "copy.ipynb"
        nbformat.write(notebook, copy)
        found = inspect_notebook(str(copy))
    stored = (node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name))
    assigned = {node.id for node in stored if isinstance(node.ctx, ast.Store)}
    unread = assigned - set(found)
    if unread:
        raise PudNetError(
            f"{path.name}: papermill cannot read the parameter {', '.join(sorted(unread))}; write it as "
            "`name: type = value  # comment` on one line, with a single '=' in it."
        )
    return {name: _type_of(entry["inferred_type_name"], entry["default"]) for name, entry in found.items()}


def _type_of(annotation: str, default: str) -> Any:
    if annotation in TYPES:
        return TYPES[annotation]
    try:
        value = ast.literal_eval(default)
    except (ValueError, SyntaxError):
        return Any
    return Any if value is None else type(value)


def check_parameters(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check parameters against a notebook before it runs; fields of its experiment's config go into ``overrides``.

    Args:
        path: The notebook.
        given: Name → value.

    Returns:
        What papermill shall inject. ``profile`` and ``seed`` are left out where the notebook has none.

    Raises:
        PudNetError: If a name is unknown (with the nearest one), or a value has the wrong type.
    """
    declared = declared_parameters(path)
    injected: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    for name, value in given.items():
        if name in declared:
            injected[name] = checked(f"{name} of {path.name}", value, declared[name])
        elif "overrides" in declared and name not in ("profile", "seed"):
            overrides[name] = value
        elif name != "profile":
            raise unknown_name(f"parameter of {path.name}", name, declared)
    if overrides:
        _check_fields(path, given.get("profile"), overrides)
        injected["overrides"] = {**injected.get("overrides", {}), **overrides}
    return injected


def _check_fields(path: Path, profile: str | None, overrides: Mapping[str, Any]) -> None:
    """Check fields against the config of the notebook's experiment."""
    from importlib import import_module

    from pudnet_lib.profiles import replace_fields

    module = f"pudnet_lib.studies.{experiment_id(path)}"
    try:
        profiles = import_module(module).PROFILES
    except ModuleNotFoundError:
        raise PudNetError(f"{path.name}: {', '.join(overrides)} cannot be checked, for there is no {module}.") from None
    replace_fields(profiles[profile] if profile in profiles else next(iter(profiles.values())), overrides)


def strip(notebook: nbformat.NotebookNode) -> bool:
    """Remove what a run leaves behind: outputs, execution counts, widget state, the machine's kernel and versions.

    Args:
        notebook: Changed in place.

    Returns:
        Whether there was anything to remove.
    """
    before = nbformat.writes(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        for key in ("papermill", "execution", "ExecuteTime", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
    notebook.metadata.clear()
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    notebook["nbformat"], notebook["nbformat_minor"] = 4, 5
    return bool(before != nbformat.writes(notebook))


def strip_file(path: Path) -> bool:
    """Strip a notebook file in place, atomically; see ``strip``."""
    from pudnet_lib.results import atomic_write

    notebook = read_notebook(path)
    changed = strip(notebook)
    if changed:
        atomic_write(path, nbformat.writes(notebook) + "\n")
    return changed
