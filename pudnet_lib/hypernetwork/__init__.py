"""The paper's model, one file a part."""

from pudnet_lib.hypernetwork.base import ParameterModel, Parameters
from pudnet_lib.hypernetwork.pudnet import PudNet, PudNetConfig

__all__ = ["ParameterModel", "Parameters", "PudNet", "PudNetConfig"]
