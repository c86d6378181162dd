"""A headless Chromium and a JupyterLab of one's own, on the loopback, for the tests of this folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Chromium, driven by Playwright; without one the test is skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: no browser tests")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium): no browser tests")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: ``PUDNET_SCREENSHOTS``, else a temporary folder."""
    wanted = os.environ.get("PUDNET_SCREENSHOTS")
    folder = Path(wanted) if wanted else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], str]]:
    """A JupyterLab server over copies of notebooks; gives a function, notebook → address.

    It is started as ``pudnet lab`` starts it, beside a misleading ``python3`` kernel of the user's that cannot start.
    """
    folder = tmp_path_factory.mktemp("lab")
    wrong = folder / "data" / "kernels" / "python3"
    wrong.mkdir(parents=True)
    (wrong / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "Python 3", "language": "python"}')
    (folder / "served" / "notebooks").mkdir(parents=True)
    asked = folder / "settings" / "@jupyterlab" / "apputils-extension"
    asked.mkdir(parents=True)  # else it asks about news, in a corner of every picture
    (asked / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {
        "JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython",
    }  # fmt: skip
    environment = os.environ | {name: str(folder / place) for name, place in places.items()}
    environment |= {
        "PUDNET_ROOT": str(folder / "served"), "PUDNET_PROFILE": "smoke", "PUDNET_RESULTS": str(folder / "results"),
    }  # fmt: skip
    options = [
        "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        "--IdentityProvider.token=token", "--expose-app-in-browser", "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    if os.geteuid() == 0:
        options.append("--allow-root")
    with (folder / "log.txt").open("wb") as log:
        command = [sys.executable, "-m", "pudnet_lib", "lab", "--", *options]
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_it_answers(f"http://127.0.0.1:{port}/api/status?token=token", folder / "log.txt")

        def open_notebook(path: Path) -> str:
            shutil.copy(path, folder / "served" / "notebooks" / path.name)
            return f"http://127.0.0.1:{port}/lab/tree/{path.name}?token=token&reset"

        yield open_notebook
    finally:
        import psutil

        for process in [*psutil.Process(server.pid).children(recursive=True), server]:
            process.kill()
        server.wait()


def _wait_until_it_answers(address: str, log: Path) -> None:
    for _ in range(720):
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")
