"""PudNet Kit: predict the parameters of ConvNets for unseen image data.

The public names are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_HOMES = {
    "ImageDataset": "pudnet_lib.images",
    "load_images": "pudnet_lib.images",
    "as_dataset": "pudnet_lib.images",
    "check": "pudnet_lib.images",
    "PudNet": "pudnet_lib.core",
    "PudNetConfig": "pudnet_lib.core",
    "TargetConfig": "pudnet_lib.core.targets",
    "PredictConfig": "pudnet_lib.core.predict",
    "PredictedNetwork": "pudnet_lib.core.predict",
    "PudNetError": "pudnet_lib.errors",
    "SharedNetwork": "pudnet_lib.core",
    "LastBlock": "pudnet_lib.core.refine",
    "load_pudnet": "pudnet_lib.shipped",
    "Headline": "pudnet_lib.results",
    "publish": "pudnet_lib.results",
    "predict": "pudnet_lib.face",
    "Recipe": "pudnet_lib.methods.registry",
    "recipe_table": "pudnet_lib.methods.registry",
    "meta_train": "pudnet_lib.methods.training",
    "measure": "pudnet_lib.evaluate",
    "summarise": "pudnet_lib.evaluate",
    "gains": "pudnet_lib.evaluate",
    "difference": "pudnet_lib.evaluate",
    "current_profile": "pudnet_lib.profiles",
    "pick": "pudnet_lib.profiles",
    "load": "pudnet_lib.export.models",
    "accuracy": "pudnet_lib.supervised",
    "ScratchConfig": "pudnet_lib.supervised",
    "train_from_scratch": "pudnet_lib.supervised",
    "finetune": "pudnet_lib.supervised",
    "PudNetClassifier": "pudnet_lib.face",
    "choose_predictor": "pudnet_lib.auto",
    "save": "pudnet_lib.export.models",
    "trust_report": "pudnet_lib.trust",
}
__all__ = sorted(_HOMES)

try:
    __version__ = version("pudnet-kit")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for module in ("speed", "more_targets"):  # what these add registers itself
        import_module(f"pudnet_lib.{module}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
