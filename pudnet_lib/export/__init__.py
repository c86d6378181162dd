"""Take a predicted network away: torch.export, ONNX, and a model card."""

from pudnet_lib.export.card import model_card
from pudnet_lib.export.onnx_file import to_onnx
from pudnet_lib.export.program import to_torch_export

__all__ = ["model_card", "to_onnx", "to_torch_export"]
