"""The house stands: core imports nothing else, the order of docs/architecture.md holds, no import goes in a circle."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pudnet_lib"
#: From the ground up; parts of one line may not import each other, but for the pairs that stand in order within a line.
ORDER = [
    "errors", "core", "speed supervised more_targets", "files runs", "parallel profiles plots", "results", "images",
    "export", "shipped", "methods", "evaluate", "trust", "auto", "face", "denoise", "studies", "widgets",
    "batch", "cli", "__main__",
]  # fmt: skip
PLACE = {part: (line, at) for line, parts in enumerate(ORDER) for at, part in enumerate(parts.split())}


def part_of(module: str) -> str:
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def imports_of(path: Path) -> list[str]:
    """Modules of the package that a file imports when it is loaded."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pudnet_lib"):
            bare = node.module == "pudnet_lib"
            found += [f"pudnet_lib.{alias.name}" for alias in node.names] if bare else [str(node.module)]
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path):
    own = part_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for module in imports_of(path):
        other = part_of(module)
        if other not in (own, "__init__"):
            assert PLACE[other] < PLACE[own], f"{path.name} of {own} imports {module}"


def test_core_imports_nothing_else_even_late():
    for path in (PACKAGE / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("pudnet_lib"):
                assert module.startswith(("pudnet_lib.core", "pudnet_lib.errors")), f"{path.name} imports {module}"


def test_no_circle_of_files():
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES}
    paths = {name: path for path, name in names.items()}
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != 1, f"a circle: {' → '.join((*trail, name))}"
        if name in state or name not in paths:
            return
        state[name] = 1
        for module in imports_of(paths[name]):
            if module != name:
                visit(module, (*trail, name))
        state[name] = 2

    for name in paths:
        visit(name, ())


def test_core_is_read_in_an_afternoon():
    assert sum(len(p.read_text().splitlines()) for p in (PACKAGE / "core").rglob("*.py")) <= 2600


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_import_from_the_package_alone(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert "sys.path" not in "".join(cell["source"])


#: Streams that can be gone on with (a journal, a log), unpacked copies, and files in temporary folders.
OWN_WRITERS = {
    "files.py", "runs.py", "widgets.py", "images/archive.py", "images/cache.py",
    "batch/runner.py",
}  # fmt: skip


def test_all_that_is_kept_goes_through_the_one_atomic_writer():
    writes = re.compile(r"write_text|write_bytes|to_csv\(\w*[a-z]\w*, |np\.save|torch\.save\(|open\([^)]*\"[wax]b?\"")
    found = {str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py") if writes.search(p.read_text())}
    assert found <= OWN_WRITERS
