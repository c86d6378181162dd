"""Where things lie: the project's folder, its notebooks, and the folders that results go to.

Our choice; the paper has no counterpart. Notebooks hold no paths: they ask here. Only unchanged laptop and
paper configs write to the committed ``reports/results``; all other runs by hand go to the ignored ``runs/``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

RESULTS_VARIABLE = "PUDNET_RESULTS"
ROOT_VARIABLE = "PUDNET_ROOT"


def project_root() -> Path:
    """Find the project: ``PUDNET_ROOT``, else the nearest folder upwards with ``notebooks`` in it, else the package's.

    Returns:
        An absolute path; the working directory where nothing is found.
    """
    if os.environ.get(ROOT_VARIABLE):
        return Path(os.environ[ROOT_VARIABLE]).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[2]):
        if (folder / "notebooks").is_dir() and folder.name != "notebooks":
            return folder
    return here


def results_folder(profile: str, as_profiled: bool = True) -> Path:
    """Tell where results go.

    Args:
        profile: The profile of the run.
        as_profiled: Whether its config is the profile's own; a run by hand with changed fields is no committed result.

    Returns:
        The folder that a batch names in ``PUDNET_RESULTS``, else ``reports/results`` or ``runs/<profile>/results``.
    """
    if os.environ.get(RESULTS_VARIABLE):
        return Path(os.environ[RESULTS_VARIABLE])
    root = project_root()
    committed = as_profiled and profile != "smoke"
    return root / "reports" / "results" if committed else root / "runs" / profile / "results"


def file_stem(name: str, variant: str) -> str:
    """Make a file name without spaces from a name and a variant: ``intra_dataset.laptop.width=8.seed=1``."""
    return name + "".join(f".{re.sub(r'[^A-Za-z0-9=_+-]+', '-', part.strip())}" for part in variant.split(",") if part)
