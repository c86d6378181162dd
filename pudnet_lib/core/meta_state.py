"""The state of a meta-training run on disk: weights, auxiliary classifier, optimiser, step. Our choice.

Schedule and episodes are functions of the step, so the step is all that resuming needs of them; the global generators'
states are kept too, for models that draw (dropout).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pudnet_lib.errors import PudNetError
from pudnet_lib.files import load_tensors, save_tensors

STATE = "state.safetensors"
#: A run may go on on other devices, and on another number of them.
ANYWHERE = ("config.accelerator", "config.devices")


def save_training_state(
    run_dir: Path, module: nn.Module, optimiser: Any, identity: dict[str, Any], step: int, seconds: float
) -> None:
    """Write the state atomically.

    Args:
        run_dir: The run's folder.
        module: Everything that is trained.
        optimiser: An Adam over the module's parameters.
        identity: What makes this run this run; compared when it resumes.
        step: Steps done.
        seconds: Training seconds so far.
    """
    tensors: dict[str, Tensor] = {f"module/{n}": t for n, t in module.state_dict().items()}
    names = _names(module, optimiser)
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{names[index]}/{k}": torch.as_tensor(v) for k, v in state.items()}
    tensors["generator/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["generator/cuda"] = torch.cuda.get_rng_state()
    save_tensors(run_dir / STATE, tensors, {"identity": identity, "step": step, "seconds": seconds})


def load_training_state(
    run_dir: Path, module: nn.Module, optimiser: torch.optim.Optimizer, identity: dict[str, Any]
) -> tuple[int, float]:
    """Put a run's state back.

    Args:
        run_dir: The run's folder.
        module: Built exactly as it was.
        optimiser: Fresh, over the module's parameters.
        identity: As at saving.

    Returns:
        Steps done and training seconds; (0, 0.0) where there is no state yet.

    Raises:
        PudNetError: If the state belongs to another configuration or model.
    """
    path = run_dir / STATE
    if not path.is_file():
        return 0, 0.0
    tensors, description = load_tensors(path)
    old, new = _flat(description["identity"]), _flat(json.loads(json.dumps(identity)))
    differing = sorted(k for k in {*old, *new} - {*ANYWHERE} if old.get(k) != new.get(k))
    if differing:
        first = differing[0]
        raise PudNetError(
            f"{run_dir} holds a run of another configuration: {first} was {old.get(first)}, now {new.get(first)}. "
            "Choose another folder, or delete that one to start anew."
        )
    weights = {n.removeprefix("module/"): t for n, t in tensors.items() if n.startswith("module/")}
    own = module.state_dict()
    wrong = [n for n in {*own, *weights} if n not in own or n not in weights or own[n].shape != weights[n].shape]
    if wrong:
        raise PudNetError(f"{path} belongs to another model: {sorted(wrong)[0]!r} differs. Choose another folder.")
    module.load_state_dict(weights)
    names = _names(module, optimiser)
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser/"):
            name, _, entry = key.removeprefix("optimiser/").rpartition("/")
            state.setdefault(names.index(name), {})[entry] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["generator/cpu"])
    if "generator/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["generator/cuda"])
    return int(description["step"]), float(description["seconds"])


def _names(module: nn.Module, optimiser: Any) -> list[str]:
    """Names of the parameters in the order in which the optimiser numbers them."""
    known = {id(p): n for n, p in module.named_parameters()}
    return [known[id(p)] for group in optimiser.param_groups for p in group["params"]]


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
