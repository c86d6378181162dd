"""docs/adding-an-experiment.md, followed to the letter in a copy: its module and notebook run and reach the report."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat import v4

from pudnet_lib.batch.notebook import strip

ROOT = Path(__file__).parents[2]


def test_the_guide_works_as_it_is_written(tmp_path):
    text = (ROOT / "docs" / "adding-an-experiment.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    module, *cells = [source for language, source in blocks if language == "python"]
    (title,) = [source for language, source in blocks if language == "markdown"]
    shutil.copytree(ROOT / "pudnet_lib", tmp_path / "pudnet_lib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pudnet_lib" / "experiments" / "sketch_spread.py").write_text(module, encoding="utf-8")
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell(title)] + [v4.new_code_cell(c) for c in cells])
    notebook.cells[1].metadata["tags"] = ["parameters"]
    strip(notebook)
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "09_sketch_spread.ipynb")

    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PUDNET_ROOT": str(tmp_path)}
    command = [sys.executable, "-m", "pudnet_lib", "reproduce", "sketch_spread", "--profile", "smoke"]
    done = subprocess.run([*command, "--grid", "sizes=[1,2],[1,3]"], cwd=tmp_path, env=environment, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "reports" / "runs" / "smoke" / "index.html").read_text(encoding="utf-8")
    assert "Does a larger sketch give a steadier picture" in page
    assert "3 a class" in page
    command += ["--grid", "drows=1"]
    wrong = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "Did you mean 'draws'" in wrong.stderr
