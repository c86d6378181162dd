"""What a fresh clone needs: one list of packages, a Makefile with clear messages, no machine's paths."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TRACKED = [
    path
    for folder in ("pudnet_lib", "tests", "docs", "benchmarks", "scripts", "notebooks", ".ci")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts and ".ipynb_checkpoints" not in path.parts
] + [ROOT / name for name in ("README.md", "Makefile", "pyproject.toml", "environment.yml", "LICENSE")]
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def test_environment_yml_lists_what_pyproject_lists():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    by_pip = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    assert sorted(by_pip) == sorted([*wanted, "-e .[dev]"]), (
        "make the lists in environment.yml and pyproject.toml equal"
    )
    assert f"python{PROJECT['requires-python']}" in environment


def test_every_dependency_is_bounded():
    every = PROJECT["dependencies"] + [d for extra in PROJECT["optional-dependencies"].values() for d in extra]
    assert [d for d in every if not re.fullmatch(r"[A-Za-z0-9_.-]+>=[\d.]+,<[\d.]+", d)] == []


def test_no_file_holds_a_machines_path():
    # Spelled so that this file does not hold them either.
    pattern = re.compile("|".join(("/" + "root/", "/" + "home/[a-z]", "/" + "work/", "/" + "Users/[A-Za-z]")))
    texts = (path for path in TRACKED if path.suffix in {".py", ".md", ".yml", ".toml", ".ipynb", ".cfg", ""})
    assert [str(path.relative_to(ROOT)) for path in texts if pattern.search(path.read_text(encoding="utf-8"))] == []


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)


@needs_make
def test_make_says_clearly_that_python_is_too_old(tmp_path):
    done = make("install", f"VENV={tmp_path / 'venv'}", "PYTHON=")
    assert done.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13; found: Python" in done.stderr


@needs_make
def test_make_says_clearly_that_the_disk_is_short(tmp_path):
    done = make("install", f"VENV={tmp_path / 'venv'}", "NEEDED_GB=99999999")
    assert done.returncode != 0
    assert re.search(r"Only \d+ GB are free .* needs 99999999 GB", done.stderr)
    assert not (tmp_path / "venv").exists()


@needs_make
def test_make_refuses_an_environment_of_another_python(tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "it has Python 3.8; PudNet Kit needs 3.11 to 3.13." >&2; exit 1\n')
    python.chmod(0o755)
    done = make("install", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert "needs 3.11 to 3.13" in done.stderr


@needs_make
def test_make_help_names_the_two_commands():
    shown = make("help").stdout
    assert "make report" in shown
    assert "make test" in shown


def test_ci_runs_the_readmes_test_command():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "\nmake test\n" in script.read_text()
    assert "make test" in (ROOT / "README.md").read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_licence_is_mit():
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n\nCopyright (c) 2026 PudNet Kit contributors")
