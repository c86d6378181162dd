"""The GPU script's smoke run on the CPU: every part runs, and writes its own file."""

import importlib.util
import json
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "on_gpu.py"


def test_every_part_of_the_gpu_script_runs_on_a_cpu(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("on_gpu", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("sys.argv", ["on_gpu.py", "--minutes", "0.5", "--smoke", "--out", str(tmp_path)])
    assert not module.main()
    parts = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("gpu_*.json")}
    assert {"gpu_speed", "gpu_headline", "gpu_scale"} <= set(parts)
    assert not [name for name, part in parts.items() if "error" in part]
