"""docs/adding-an-experiment.md, followed to the letter: one notebook, no other file, and it reaches the report."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat import v4

ROOT = Path(__file__).parents[2]


def test_the_guide_works_as_it_is_written(tmp_path):
    text = (ROOT / "docs" / "adding-an-experiment.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    cells = [source.rstrip() for language, source in blocks if language == "python"]
    (title,) = [source for language, source in blocks if language == "markdown"]
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell(title)] + [v4.new_code_cell(c) for c in cells])
    notebook.cells[1].metadata["tags"] = ["parameters"]
    path = tmp_path / "notebooks" / "09_sketch_spread.ipynb"
    path.parent.mkdir()
    nbformat.write(notebook, path)

    def pudnet(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pudnet_lib", "reproduce", "sketch_spread", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PUDNET_ROOT": str(tmp_path), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    wrong = pudnet("--profile", "smoke", "--grid", "datset=emoji")
    assert wrong.returncode == 2
    assert "Did you mean 'dataset'" in wrong.stderr
    done = pudnet("--profile", "smoke", "--grid", "sizes=[1,2]")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "reports" / "runs" / "smoke" / "index.html").read_text(encoding="utf-8")
    assert re.sub(r"<[^>]+>", "", page).count("Does a larger sketch give a steadier picture")  # "sketch" is a tag
    assert "2 per class" in page
    assert nbformat.read(path, 4) == nbformat.from_dict(notebook)  # nothing but the ignored folder has changed
    # Removed again, it is gone: nothing else knows of it.
    path.unlink()
    gone = pudnet("--profile", "smoke")
    assert gone.returncode == 2
