"""Take a predicted network away: one file, torch.export, ONNX, a model card, the Hub."""

from pudnet_lib.export.hub import card, from_pretrained, predictor_card, push_to_hub, save_pretrained
from pudnet_lib.export.models import load, load_model, load_network, save
from pudnet_lib.export.program import onnx, torch_export

__all__ = [
    "card", "from_pretrained", "load", "load_model", "load_network", "onnx", "predictor_card", "push_to_hub", "save",
    "save_pretrained", "torch_export",
]  # fmt: skip
