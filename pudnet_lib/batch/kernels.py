"""Notebooks run in the environment that the kit was started from, whatever kernels the user has installed.

Our choice; the paper has no counterpart. Notebooks name the kernel ``python3``, and a user may have another
environment's kernel under that name. ``JUPYTER_PATH`` is searched before the user's folders, so a ``python3`` of our
own there wins.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from pudnet_lib.results import atomic_write


def own_kernel(folder: Path) -> dict[str, str]:
    """Write a ``python3`` kernel that is this interpreter, and name the environment variables that make Jupyter use it.

    Args:
        folder: Where the kernel's folder goes.

    Returns:
        Variables to add to the environment of papermill or JupyterLab.
    """
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3 (PudNet Kit)",
        "language": "python",
        "metadata": {"debugger": True},
    }
    atomic_write(folder / "kernels" / "python3" / "kernel.json", json.dumps(spec, indent=1))
    searched = [str(folder.resolve()), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    return {"JUPYTER_PATH": os.pathsep.join(searched)}
