"""Save and load whole parameter models (PudNet, shared network) by their configuration. Our choice."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from pudnet_lib.core import ParameterModel, PudNet, PudNetConfig
from pudnet_lib.core.layout import Unsupported
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.predict import PredictedNetwork
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.files import load_tensors, save_tensors

_KINDS: dict[str, tuple[type[Any], type[Any]]] = {
    "pudnet": (PudNet, PudNetConfig),
    "shared": (SharedNetwork, SharedConfig),
}


def config_from_dict(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Build a frozen config dataclass, nested ones included, from plain values.

    Args:
        kind: The dataclass.
        values: Field name to value; lists become tuples.

    Returns:
        An instance of ``kind``.

    Raises:
        PudNetError: If a name is unknown; the message has the nearest one.
    """
    hints = get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    built: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise unknown_name(f"field of {kind.__name__}", name, known)
        if dataclasses.is_dataclass(hints[name]) and isinstance(value, Mapping):
            value = config_from_dict(hints[name], value)
        built[name] = tuple(value) if isinstance(value, list) else value
    return kind(**built)


def describe(model: ParameterModel) -> dict[str, Any]:
    """Describe a model so that ``build`` can make it again: kind, config and the shapes that it predicts."""
    kind = next(name for name, (cls, _) in _KINDS.items() if type(model) is cls)
    shapes = {t.name: list(t.shape) for t in model.layout.predicted}
    config: Any = model.config  # every kind has one
    own = bool(getattr(model, "own_target", False))
    return {"kind": kind, "config": dataclasses.asdict(config), "predicts": shapes, "own_target": own}


def build(
    description: Mapping[str, Any], target: nn.Module | None = None, unsupported: Unsupported = "refuse"
) -> ParameterModel:
    """Build a model, freshly initialised, from its description.

    Args:
        description: As made by ``describe``.
        target: The user's own target network, if the model was built for one.
        unsupported: As at the time when the model was built.

    Returns:
        The model.

    Raises:
        PudNetError: If the kind is unknown, or the target is missing or has another architecture.
    """
    if description.get("kind") not in _KINDS:
        raise unknown_name("kind of model", str(description.get("kind")), _KINDS)
    if description["own_target"] and target is None:
        raise PudNetError("This checkpoint predicts a network of your own; pass that module as target=....")
    cls, config_cls = _KINDS[description["kind"]]
    model: ParameterModel = cls(config_from_dict(config_cls, description["config"]), target, unsupported)
    shapes = {t.name: list(t.shape) for t in model.layout.predicted}
    if shapes != description["predicts"]:
        wanted = dict(description["predicts"])
        differing = sorted(n for n in {*shapes, *wanted} if shapes.get(n) != wanted.get(n))
        first = differing[0]
        raise PudNetError(
            f"The checkpoint predicts another architecture: {len(differing)} tensors differ, first {first!r} with "
            f"shape {wanted.get(first)} there and {shapes.get(first)} here. Build the target as it was in training."
        )
    return model


def save_model(model: ParameterModel, path: Path | str, **notes: Any) -> None:
    """Save a model as one safetensors file.

    Args:
        model: PudNet or shared network.
        path: The file.
        notes: More for its description, such as the sources of its meta-training; JSON values.
    """
    save_tensors(path, model.state_dict(), {"model": describe(model), "notes": notes})


def load_state(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy tensors into a module, with an error that names what does not match."""
    own = model.state_dict()
    missing, extra = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    shapes = [n for n in own if n in tensors and own[n].shape != tensors[n].shape]
    if missing or extra or shapes:
        raise PudNetError(
            f"{origin} does not fit this {type(model).__name__}: missing {missing[:3]}, unexpected {extra[:3]}, other "
            f"shapes {shapes[:3]}. Build the model with the configuration that is in the checkpoint."
        )
    model.load_state_dict(dict(tensors))


def load_model(
    path: Path | str, target: nn.Module | None = None, unsupported: Unsupported = "refuse"
) -> tuple[ParameterModel, dict[str, Any]]:
    """Load a model that ``save_model`` wrote.

    Args:
        path: The file.
        target: The user's own target network, if the model was built for one.
        unsupported: As at the time when the model was built.

    Returns:
        The model in evaluation mode, and the notes saved with it.

    Raises:
        PudNetError: If the file is no such checkpoint or does not fit.
    """
    tensors, description = load_tensors(path)
    if "model" not in description:
        raise PudNetError(f"{path} is no model file of the kit (a training state, perhaps?). Expected 'model'.")
    model = build(description["model"], target, unsupported)
    load_state(model, tensors, str(path))
    return model.eval(), description["notes"]


def save_network(network: PredictedNetwork, path: Path | str) -> None:
    """Save a predicted network as one safetensors file with its JSON description inside."""
    target = None if network.target is None else dataclasses.asdict(network.target)
    about = {"class_names": list(network.class_names), "image_size": network.image_size, "channels": network.channels}
    about |= {"target": target, "origin": network.origin, "seconds": network.seconds}
    save_tensors(path, network.state_dict(), {"network": about})


def load_network(path: Path | str, backbone: nn.Module | None = None) -> PredictedNetwork:
    """Load what ``save_network`` wrote.

    Args:
        path: The file.
        backbone: For a network of the user's own: a module of that architecture; it is copied.

    Returns:
        The network, which gives the same output as before it was saved.

    Raises:
        PudNetError: If the file is no such network, or the backbone is missing or does not fit.
    """
    tensors, description = load_tensors(path)
    if "network" not in description:
        raise PudNetError(f"{path} holds no predicted network; expected a file that save_network wrote.")
    about = dict(description["network"])
    target = None if about["target"] is None else TargetConfig(**about["target"])
    if target is None and backbone is None:
        raise PudNetError(f"{path} holds a network of your own; pass that module as backbone=....")
    module = build_target(target) if target is not None else copy.deepcopy(backbone)
    assert module is not None
    network = PredictedNetwork(module, torch.empty_like(tensors["means"]), 0.0, **about | {"target": target})
    load_state(network, tensors, str(path))
    return network.eval()
