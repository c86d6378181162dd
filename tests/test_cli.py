"""The command line: help, lazy commands, options made from configs, clean errors."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Literal

import pytest
import typer
from typer.testing import CliRunner

from pudnet_lib import cli
from pudnet_lib.cli import attribute_docs, show_progress, with_options

RUN = CliRunner()


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"COLUMNS": "120", "NO_COLOR": "1"} | environment
    command = [sys.executable, "-m", "pudnet_lib", *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_help_lists_all_commands_without_loading_torch():
    code = "import sys; sys.argv = ['pudnet', '--help']\nfrom pudnet_lib.cli import app\n"
    code += "try:\n    app()\nexcept SystemExit:\n    pass\nassert not {'torch', 'pandas'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("reproduce", "compare", "site", "lab", "datasets", "strip"):
        assert command in done.stdout


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_has_a_help_page(command):
    done = RUN.invoke(cli.app, [command, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage" in done.output


def test_bad_input_is_one_line_and_exit_code_2(tmp_path):
    (tmp_path / "notebooks").mkdir()
    done = call("reproduce", "--profile", "huge", PUDNET_ROOT=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("pudnet: ")
    assert call("reproduse").returncode == 2
    assert call("site", "--bad-option").returncode == 2


def test_compare_and_strip(tmp_path):
    done = call("compare", str(tmp_path), str(tmp_path))
    assert (done.returncode, done.stderr) == (2, f"pudnet: {tmp_path} holds no result files (*.json).\n")
    import nbformat

    path = tmp_path / "a.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", execution_count=2)]), path)
    assert "stripped" in RUN.invoke(cli.app, ["strip", str(path)]).output
    assert "clean already" in RUN.invoke(cli.app, ["strip", str(path)]).output


def test_compare_tells_what_moved(tmp_path):
    import pandas as pd

    from pudnet_lib.results import write_result

    facts = {"config": {}, "seed": 0, "seconds": 1, "commit": "c", "versions": {}, "device": "d", "peak_memory_mb": 1}
    for name, mean in (("a", 1.0), ("b", 2.0)):
        rows = pd.DataFrame([{"method": "PudNet", "metric": "top-1", "mean": mean}])
        write_result(tmp_path / name / "toy.json", "toy", "Q?", "A.", rows, facts)
    done = RUN.invoke(cli.app, ["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert done.exit_code == 1
    assert "1 moved, 0 within" in done.output
    assert RUN.invoke(cli.app, ["compare", "--all", str(tmp_path / "a"), str(tmp_path / "a")]).exit_code == 0


def test_datasets_lists_the_embedded_packs():
    done = RUN.invoke(cli.app, ["datasets", "fashion"])
    assert done.exit_code == 0
    assert "fashion" in done.output
    assert "licence" in done.output


@dataclass(frozen=True)
class Inner:
    """Inner.

    Attributes:
        ways: Classes an episode.
    """

    ways: int = 5


@dataclass(frozen=True)
class Config:
    """A config.

    Attributes:
        seed: The seed.
        rate: Learning rate,
            a step.
        sources: Names.

    Raises:
        Nothing: at all.
    """

    seed: int = 0
    rate: float = 1e-3
    kind: Literal["a", "b"] = "a"
    sources: tuple[str, ...] = ("x", "y")
    sizes: tuple[int, ...] = ()
    fast: bool = True
    cap: int | None = None
    inner: Inner = field(default_factory=Inner)
    total: int = field(default=0, init=False)


def made(seen: list) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @with_options(Config, "settings")
    def go(settings: Config, out: str = "here") -> None:
        seen.append((settings, out))

    return app


def test_options_are_the_fields_of_the_config():
    seen = []
    app = made(seen)
    assert RUN.invoke(app, []).exit_code == 0
    line = "--rate 1 --inner-ways 3 --sources q,r --sources s --sizes 1,2 --no-fast --cap 3 --kind b --out there"
    assert RUN.invoke(app, line.split()).exit_code == 0
    assert seen == [(Config(), "here"), (Config(0, 1.0, "b", ("q", "r", "s"), (1, 2), False, 3, Inner(3)), "there")]
    shown = RUN.invoke(app, ["--help"], env={"COLUMNS": "120", "NO_COLOR": "1"}).output
    assert "Learning rate, a step." in shown
    assert "--inner-ways" in shown
    assert "0.001" in shown
    assert "--total" not in shown


def test_a_value_that_does_not_fit_names_the_field():
    done = RUN.invoke(made([]), ["--kind", "c"])
    assert "Config.kind is 'c'" in str(done.exception)
    assert "Config.sizes" in str(RUN.invoke(made([]), ["--sizes", "1,big"]).exception)
    assert attribute_docs(Config) == {"seed": "The seed.", "rate": "Learning rate, a step.", "sources": "Names."}


def test_a_name_that_is_taken_twice_is_noticed():
    with pytest.raises(ValueError, match="seed"):

        @with_options(Config, "config")
        def go(config: Config, seed: int = 1) -> None: ...


def test_progress_is_one_line_an_event_without_a_terminal(capsys):
    with show_progress(["a"]) as tell:
        tell("a", "cell 1 of 3")
    assert "a: cell 1 of 3" in capsys.readouterr().out


def test_progress_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with show_progress(["a", "b"]) as tell:
        tell("a", "cell 1 of 3")
        tell("a", "done in 3 s")
        tell("b", "FAILED: no")
    assert "done in 3 s" in capsys.readouterr().err


def test_help_pages_cut_nothing_at_80_columns():
    for arguments in (["--help"], ["train", "--help"]):
        shown = call(*arguments, COLUMNS="80").stdout
        assert "..." not in shown.replace("COMMAND [ARGS]...", "")
        assert "…" not in shown.replace(",…", "")
    assert "--meta-episodes-per-step" in shown


def test_the_version_is_printed():
    from pudnet_lib import __version__

    assert call("--version").stdout == f"pudnet {__version__}\n"


@pytest.mark.parametrize(
    "line",
    [
        *("train x --meta-steps -1", "reproduce --seeds -1", "prepare x --sizes a", "compare none none"),
        *("strip none.ipynb", "predict x --out y --seed -1", "predict x --out y --seconds -1", "grow-zoo --seed -1"),
        *("predict x --out y --seed 99999999999999999999", "prepare x --workers -1", "reproduse", "site --huge"),
    ],
)
def test_odd_values_are_one_line_and_exit_code_2(line, tmp_path):
    done = call(*line.split(), PUDNET_ROOT=str(tmp_path), PYTHONIOENCODING="cp1252")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_name_that_the_terminal_cannot_show_is_no_reason_to_stop(tmp_path):
    import nbformat

    path = tmp_path / "猫.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), path)
    done = call("strip", str(path), PYTHONIOENCODING="cp1252", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert r"\u732b.ipynb" in done.stdout
