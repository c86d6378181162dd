"""Methods that are compared, one file each; every file registers its own (``registry``), recipes pick them by name."""

import pudnet_lib.more_targets
import pudnet_lib.speed  # noqa: F401  (they register themselves)
from pudnet_lib.methods.registry import CLASS_LOSS, PAPER_LOSSES, Method, Recipe, method, recipe_table, register

__all__ = ["CLASS_LOSS", "PAPER_LOSSES", "Method", "Recipe", "method", "recipe_table", "register"]
