"""Start JupyterLab so that its notebooks run in this environment.

Our choice; the paper has no counterpart.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pudnet_lib.batch.kernels import own_kernel
from pudnet_lib.batch.places import project_root


def lab_command(options: Sequence[str], folder: Path) -> tuple[list[str], dict[str, str]]:
    """Make JupyterLab's command line and environment.

    Args:
        options: Further options.
        folder: Holds the kernel of this environment while the server runs.

    Returns:
        The command and the whole environment.
    """
    notebooks = project_root() / "notebooks"
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={notebooks}", *options]
    return command, {**os.environ, **own_kernel(folder)}


def start_lab(options: Sequence[str]) -> int:
    """Run JupyterLab until it is stopped.

    Args:
        options: Options for JupyterLab.

    Returns:
        Its exit code.
    """
    with tempfile.TemporaryDirectory(prefix="pudnet-lab-") as folder:
        command, environment = lab_command(options, Path(folder))
        with subprocess.Popen(command, env=environment) as server:
            while True:
                try:
                    return server.wait()
                except KeyboardInterrupt:
                    continue  # the server asks the same terminal whether it shall stop
