"""core/ is read in an afternoon: it imports nothing else of the package, in no circle, and little else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

CORE = Path(__file__).parents[1] / "pudnet_lib" / "core"
ABSENT = ("torchvision", "IPython", "ipywidgets", "jupyter_client", "papermill", "typer", "seaborn", "matplotlib")


def imports(path: Path, late: bool) -> set[str]:
    """Modules of the package that a file imports; with ``late`` those inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if late else iter(tree.body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pudnet_lib"):
            found.add(str(node.module))
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("pudnet_lib")}
    return found


def test_core_imports_core_and_errors_alone():
    for path in CORE.glob("*.py"):
        foreign = {m for m in imports(path, True) if not m.startswith("pudnet_lib.core") and m != "pudnet_lib.errors"}
        assert not foreign, f"{path.name} imports {foreign}"
        assert imports(path, True) == imports(path, False), f"{path.name} imports late"


def test_no_circle_in_core():
    graph = {path.stem: {m.rpartition(".")[2] for m in imports(path, True)} for path in CORE.glob("*.py")}
    done: set[str] = set()
    while len(done) < len(graph):
        ready = {name for name, needs in graph.items() if name not in done and needs & set(graph) <= done}
        assert ready, f"a circle among {sorted(set(graph) - done)}"
        done |= ready


def test_core_is_short():
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in CORE.rglob("*.py")) <= 2600


def test_core_works_without_torchvision_jupyter_and_the_rest():
    script = f"""
import sys
for name in {ABSENT!r}:
    sys.modules[name] = None
import torch
from pudnet_lib.core import PudNet, SharedNetwork, ImageDataset, episodes, meta, predict
from pudnet_lib.core.targets import TargetConfig, build_target
images = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8)
data = ImageDataset(images, torch.arange(40) % 4, tuple("abcd"))
model = PudNet(build_target(TargetConfig("resnet18", 2)), dim=8)
sampler = episodes.EpisodeSampler([data], episodes.EpisodeConfig(4, 2, 2, 2))
meta.meta_train(model, sampler, meta.MetaConfig(steps=1, accelerator="cpu"), progress=False)
print(predict.predict(model, data)(images).shape)
assert not [m for m in sys.modules if m.startswith("pudnet_lib") and not m.startswith("pudnet_lib.core")
            and m not in ("pudnet_lib", "pudnet_lib.errors")]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([40, 4])" in done.stdout
