"""The scripts of docs/howto.md run as they stand, each in a folder of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "docs" / "howto.md").read_text()
SCRIPTS = re.findall(r"## (.+?)\n\n```python\n(.*?)```", TEXT, flags=re.DOTALL)


def test_there_are_six():
    assert len(SCRIPTS) == 6


@pytest.mark.parametrize(("title", "script"), SCRIPTS, ids=[title for title, _ in SCRIPTS])
def test_script(title, script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path / "cache"))
    exec(compile(script, title, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()
