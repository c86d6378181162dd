"""The method, to be read in an afternoon: one file a part, nothing else of the package imported."""

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.model import ParameterModel, Parameters, SharedNetwork
from pudnet_lib.core.pudnet import PudNet, PudNetConfig

__all__ = ["ImageDataset", "ParameterModel", "Parameters", "PudNet", "PudNetConfig", "SharedNetwork"]
