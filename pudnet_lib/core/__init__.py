"""The paper's model, one file a part."""

from pudnet_lib.core.model import ParameterModel, Parameters
from pudnet_lib.core.pudnet import PudNet, PudNetConfig

__all__ = ["ParameterModel", "Parameters", "PudNet", "PudNetConfig"]
