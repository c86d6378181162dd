"""A small project in a temporary folder: notebooks without torch, and results that are the same in every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

PARAMETERS = """from pudnet_lib import current_profile

profile: str = current_profile()  # smoke or laptop
seed: int = 0
width: int = None  # target width
names: list = ["a"]
rate: float = 0.5
"""

# What publish() writes, with a fixed provenance: the same bytes in every run, and no import of torch.
RESULT = """import os, pandas as pd
from pathlib import Path
from pudnet_lib.results import Headline, write_result
folder = Path(os.environ["PUDNET_RESULTS"])
facts = dict(config=dict(width=width), seed=seed, seconds=1.5, commit="0123456789", versions={"python": "3"},
             device="a laptop", peak_memory_mb=100.0)
rows = pd.DataFrame([dict(method="PudNet", dataset="toy", metric="top-1", mean=60.0 + seed, low=58.0, high=62.0 + seed,
                          n=20, seeds=2, chance=25.0)])
variant = os.environ["PUDNET_VARIANT"]
stem = "NAME." + profile + "".join("." + part.strip() for part in variant.split(",") if part)
(folder / f"{stem}.plot.svg").write_text('<svg width="9pt" height="9pt"><g id="background-figure"><path/></g></svg>')
head = [Headline("Toy", "top-1 accuracy, %", 70.0, 20.0, 60.0, 0.1, 25.0, (69.0, 71.0), (58.0, 62.0), "draft")]
write_result(folder / f"{stem}.json", "NAME", "Does NAME work?", "It does: 60.0 %.", rows, facts, head,
             title="Title of NAME", profile=profile, variant=variant,
             figures=[dict(name="plot", alt="A picture of nothing much", file=f"{stem}.plot.svg")])
"""

Maker = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of an empty project; the kit takes it for its own."""
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    monkeypatch.setenv("PUDNET_ROOT", str(tmp_path / "project"))
    monkeypatch.delenv("PUDNET_PROFILE", raising=False)
    monkeypatch.delenv("PUDNET_RESULTS", raising=False)
    monkeypatch.delenv("PUDNET_VARIANT", raising=False)
    return tmp_path / "project"


@pytest.fixture
def notebook(project: Path) -> Maker:
    """Make a notebook: name, then the code cells after the parameters; ``parameters=None`` leaves that cell out."""

    def make(name: str, *cells: str, parameters: str | None = PARAMETERS) -> Path:
        made = v4.new_notebook(cells=[v4.new_markdown_cell(f"# Title of {name}\n\nA question?")])
        if parameters is not None:
            made.cells.append(v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        made.cells += [v4.new_code_cell(cell) for cell in cells]
        path = project / "notebooks" / f"{name}.ipynb"
        nbformat.write(made, path)
        return path

    return make


@pytest.fixture
def result_cell() -> Callable[[str], str]:
    """The last cell of a notebook of an experiment of this name."""
    return lambda name: RESULT.replace("NAME", name)
