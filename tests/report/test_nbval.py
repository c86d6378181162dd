"""nbval compares: one changed number in a committed output of a compared cell is seen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from pudnet_lib.batch.notebook import read_notebook

ROOT = Path(__file__).parents[2]


def _text(output: nbformat.NotebookNode) -> str:
    return str(output.get("text") or output.get("data", {}).get("text/plain", ""))


def _compared() -> tuple[Path, int] | None:
    """The committed notebook and its cell that are compared soonest: few cells before it, a number in its output."""
    found = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for place, cell in enumerate(read_notebook(path).cells):
            tagged = "nbval-check-output" in cell.metadata.get("tags", ())
            if tagged and any(re.search(r"\d", _text(output)) for output in cell.outputs):
                found.append((place, path))
                break
    return (min(found)[1], min(found)[0]) if found else None


def nbval(path: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", "120",
        "--nbval-sanitize-with", str(ROOT / "tests" / "sanitize.cfg"), "-p", "no:cacheprovider", "-c", os.devnull,
    ]  # fmt: skip
    environment = os.environ | {
        "PUDNET_PROFILE": "smoke",
        "OMP_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    return subprocess.run([*command, str(path)], env=environment, capture_output=True, text=True, check=False)


def test_a_changed_number_in_a_committed_output_is_seen(tmp_path):
    chosen = _compared()
    if chosen is None:
        pytest.skip("no notebook has a compared cell with an output")
    path, place = chosen
    notebook = read_notebook(path)
    notebook.cells = notebook.cells[: place + 1]
    nbformat.write(notebook, tmp_path / "copy.ipynb")
    same = nbval(tmp_path / "copy.ipynb")
    assert same.returncode == 0, same.stdout
    output = next(o for o in notebook.cells[place].outputs if re.search(r"\d", _text(o)))
    changed = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), _text(output), count=1)
    if "text" in output:
        output["text"] = changed
    else:
        output["data"]["text/plain"] = changed
    nbformat.write(notebook, tmp_path / "changed.ipynb")
    different = nbval(tmp_path / "changed.ipynb")
    assert different.returncode == 1, different.stdout
    assert "1 failed" in different.stdout


def test_only_addresses_are_replaced_before_outputs_are_compared():
    """A ten-digit number is no commit."""
    text = (ROOT / "tests" / "sanitize.cfg").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"^regex: (.*)$", text, re.MULTILINE)
    assert (
        re.sub(pattern, "", "<object at 0x7f00aa11bb22> 1234567890 0.5 s 12 MB")
        == "<object at > 1234567890 0.5 s 12 MB"
    )
