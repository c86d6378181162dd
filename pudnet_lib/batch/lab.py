"""``pudnet lab``: JupyterLab on the notebooks, in this environment; the server ends with the command."""

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pudnet_lib.batch.runner import own_kernel, temporary_folder
from pudnet_lib.parallel import end_with_parent
from pudnet_lib.results import project_root


def lab_command(options: Sequence[str], folder: Path) -> tuple[list[str], dict[str, str]]:
    """Make the server's command line and whole environment; ``folder`` holds the kernel while it runs."""
    notebooks = project_root() / "notebooks"
    # One message of the browser: the kit's panels send pieces of 4 MB, ipywidgets' own uploads all in one.
    settings = {"websocket_max_message_size": 520 * 2**20}
    given = [f"--ServerApp.root_dir={notebooks}", f"--ServerApp.tornado_settings={settings}", *options]
    return [sys.executable, "-m", "pudnet_lib.batch.lab", *given], {**os.environ, **own_kernel(folder)}


def start_lab(options: Sequence[str]) -> int:
    """Run JupyterLab until it is stopped; SIGTERM stops it at once, Ctrl-C asks as JupyterLab does. Its exit code."""
    with temporary_folder() as folder:
        command, environment = lab_command(options, folder)
        with subprocess.Popen(command, env=environment) as server:
            before = signal.signal(signal.SIGTERM, lambda *_: server.terminate())
            try:
                while True:
                    try:
                        return server.wait()
                    except KeyboardInterrupt:
                        continue  # the server asks the same terminal whether it shall stop
            finally:
                signal.signal(signal.SIGTERM, before)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)  # the server ends its kernels, too
    time.sleep(10)
    os._exit(1)


if __name__ == "__main__":
    end_with_parent(_stop)
    sys.argv[0] = "jupyter-lab"
    runpy.run_module("jupyterlab", run_name="__main__", alter_sys=False)
