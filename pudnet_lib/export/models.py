"""Save and load predictors (PudNet, shared network) and predicted networks, each as one checked file. Our choice."""

import copy
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pudnet_lib.more_targets  # noqa: F401  (registers the U-Net and torchvision's)
from pudnet_lib.core import ParameterModel, PudNet, PudNetConfig
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.predict import PredictedNetwork
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import config_from_dict, load_tensors, save_tensors, shapes_only

_KINDS: dict[str, tuple[Any, Any]] = dict(pudnet=(PudNet, PudNetConfig), shared=(SharedNetwork, SharedConfig))


@dataclass(frozen=True)
class ModelFacts:
    """What a predictor's file says of it; ``config`` is checked by its own dataclass."""

    kind: Literal["pudnet", "shared"]
    config: dict[str, Any]
    predicts: dict[str, tuple[int, ...]]
    own_target: bool


@dataclass(frozen=True)
class NetworkFacts:
    """What a predicted network's file says of it."""

    class_names: tuple[str, ...]
    image_size: int
    channels: Literal[1, 3]
    target: TargetConfig | None
    origin: dict[str, Any]
    seconds: dict[str, float]
    head: Literal["class means", "LDA"] = "class means"
    features: Literal["", "efficientnet-lite0"] = ""

    def __post_init__(self) -> None:
        names = [unicodedata.normalize("NFC", name) for name in self.class_names]
        if len(names) < 2 or len(set(names)) < len(names) or not all(0 < len(name) <= 1000 for name in names):
            raise PudNetError("class_names must be two names or more, all of them different and none empty")
        if not 1 <= self.image_size <= 4096:
            raise PudNetError(f"image_size is {self.image_size}; expected 1 to 4096 pixels")
        for name, kind in dict(dataset=str, model=str, licence=str, looked_at=int, refinement_steps=int).items():
            if name in self.origin and (not isinstance(self.origin[name], kind) or isinstance(self.origin[name], bool)):
                raise PudNetError(f"origin.{name} is {self.origin[name]!r}; expected {kind.__name__}")


@contextmanager
def _about(path: Path | str) -> Iterator[None]:
    """Put the file's name before an error about what stands in it."""
    try:
        yield
    except PudNetError as error:
        raise PudNetError(f"{path}: {error}") from error


def load_model(path: Path | str, target: nn.Module | None = None) -> tuple[ParameterModel, dict[str, Any]]:
    """Load a predictor and its notes; shapes are compared before anything large is made."""
    tensors, description = load_tensors(path)
    if "model" not in description:
        raise PudNetError(f"{path} is no model file of the kit (a training state, perhaps?). Expected 'model'.")
    about, notes = description["model"], description.get("notes", {})
    if not isinstance(notes, dict):
        raise PudNetError(f"{path}: notes is {type(notes).__name__}; expected an object.")
    with _about(path):
        facts: ModelFacts = config_from_dict(ModelFacts, about, "model.")
        if facts.own_target and target is None:
            raise PudNetError("This checkpoint predicts a network of your own; pass that module as target=....")
        cls, config_cls = _KINDS[facts.kind]
        config = config_from_dict(config_cls, facts.config, "model.config.")
        with shapes_only() if target is None else nullcontext():
            model: ParameterModel = cls(config, target, "keep")  # what is predicted is compared next
        own, theirs = {t.name: tuple(t.shape) for t in model.layout.predicted}, facts.predicts
        if differing := sorted(n for n in {*own, *theirs} if own.get(n) != theirs.get(n)):
            shapes = f"shape {theirs.get(differing[0])} there and {own.get(differing[0])} here"
            what = f"another architecture: {len(differing)} tensors differ, first {differing[0]!r} with {shapes}"
            raise PudNetError(f"The checkpoint predicts {what}. Build the target as it was in training.")
        compare_shapes(model, tensors, "The checkpoint")
    model = cls(config) if target is None else model
    load_state(model, tensors, str(path))
    model.notes = notes
    return model.eval(), notes


def compare_shapes(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Raise an error that names what does not match between a module and a file's tensors."""
    own = model.state_dict()
    missing, extra = sorted(own.keys() - tensors), sorted(tensors.keys() - own)
    shapes = [n for n in own if n in tensors and own[n].shape != tensors[n].shape]
    if missing or extra or shapes:
        what = f"missing {missing[:3]}, unexpected {extra[:3]}, other shapes {shapes[:3]}"
        remedy = "Build the model with the configuration that is in the checkpoint."
        raise PudNetError(f"{origin} does not fit this {type(model).__name__}: {what}. {remedy}")


def load_state(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy tensors into a module, with an error that names what does not match."""
    compare_shapes(model, tensors, origin)
    model.load_state_dict(dict(tensors))


def trained_size(model: ParameterModel) -> int:
    """Side in pixels of the images that a predictor was meta-trained with; 32 where its notes don't say."""
    return int(model.notes.get("size") or model.notes.get("train", {}).get("pool", {}).get("size", 32))


class LinearNetwork(PredictedNetwork):
    """A predicted network whose head is linear (LDA) in place of class means: ``means`` holds its weights (K, F)."""

    bias: Tensor

    @classmethod
    def of(cls, network: PredictedNetwork, weight: Tensor, bias: Tensor) -> Self:
        """The same backbone and facts with another head."""
        about = (network.class_names, network.image_size, network.channels, network.target)
        made = cls(network.backbone, weight, float(network.scale), *about, network.origin, network.seconds)
        made.register_buffer("bias", bias.detach())
        return made

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W) to logits (N, K)."""
        return F.linear(self.features(images), self.means, self.bias)


def load_network(path: Path | str, backbone: nn.Module | None = None) -> PredictedNetwork:
    """Load a predicted network."""
    tensors, description = load_tensors(path)
    if "network" not in description:
        raise PudNetError(f"{path} holds no predicted network; expected a file that save(network, path) wrote.")
    with _about(path):
        facts: NetworkFacts = config_from_dict(NetworkFacts, description["network"], "network.")
    if facts.features:
        from pudnet_lib.methods.pretrained_features import PretrainedBackbone

        backbone = PretrainedBackbone()
    if facts.target is None and backbone is None:
        raise PudNetError(f"{path} holds a network of your own; pass that module as backbone=....")
    names, size, channels = facts.class_names, facts.image_size, facts.channels
    means = tensors.get("means", torch.empty(0))
    if means.ndim != 2 or len(means) != len(names):
        raise PudNetError(f"{path}: class_names has {len(names)} names and the class means shape {tuple(means.shape)}.")

    def assemble(module: nn.Module, means: Tensor) -> PredictedNetwork:
        about = names, size, channels, facts.target, facts.origin, facts.seconds
        network = PredictedNetwork(module, means, 0.0, *about)
        return network if facts.head != "LDA" else LinearNetwork.of(network, means, means.new_zeros(len(means)))

    if facts.target is not None:
        with shapes_only():
            sketch = assemble(build_target(facts.target), means.to("meta"))
        compare_shapes(sketch, tensors, str(path))
        try:  # one picture without memory: channels, size and features must go together
            sketch.backbone(torch.zeros(1, channels, size, size, device="meta"))
        except (RuntimeError, ValueError) as error:
            why = f"image_size {size} with {channels} channels does not go through this network"
            raise PudNetError(f"{path}: {why} ({str(error).splitlines()[0]}).") from error
    module = build_target(facts.target) if facts.target is not None else copy.deepcopy(backbone)
    network = assemble(cast(nn.Module, module), torch.empty_like(means))
    load_state(network, tensors, str(path))
    return network.eval()


def load(path: Path | str, module: nn.Module | None = None) -> Any:
    """Load whatever the kit saved: a predicted network, a predictor, a denoiser; in evaluation mode, on the CPU.

    Args:
        path: A .safetensors file, or the folder of ``pudnet train``, ``pudnet predict`` or ``save_pretrained``.
        module: Where the file is of a network of your own: a module of that architecture.

    Raises:
        PudNetError: If there is no such file, it is damaged, or holds something else.
    """
    place, names = Path(path).expanduser(), ("network.safetensors", "model.safetensors")
    if place.is_dir():
        if not (found := [place / name for name in names if (place / name).is_file()]):
            raise PudNetError(f"{place} holds neither {' nor '.join(names)}; expected a folder that the kit wrote.")
        place = found[0]
    description = load_tensors(place)[1]
    if "network" in description:
        return load_network(place, module)
    if "denoiser" in description:
        from pudnet_lib.denoise import Denoiser

        return Denoiser.load(place)
    return load_model(place, module)[0]


def save(thing: Any, path: Path | str) -> Path:
    """Save what ``predict``, ``pudnet train`` or ``load`` gave as one checked safetensors file; returns its path.

    Raises:
        PudNetError: If it is nothing that the kit can save, or can't be written.
    """
    place = Path(path).expanduser()
    if isinstance(thing, PredictedNetwork):
        about = dict(
            class_names=thing.class_names, image_size=thing.image_size, channels=thing.channels,
            target=thing.target and asdict(thing.target), origin=thing.origin, seconds=thing.seconds,
            head="LDA" if isinstance(thing, LinearNetwork) else "class means",
            features="efficientnet-lite0" if type(thing.backbone).__name__ == "PretrainedBackbone" else "",
        )  # fmt: skip
        save_tensors(place, thing.state_dict(), {"network": about})
    elif isinstance(thing, ParameterModel):
        kind = next(name for name, (cls, _) in _KINDS.items() if type(thing) is cls)
        shapes = {t.name: list(t.shape) for t in thing.layout.predicted}
        about = dict(kind=kind, config=asdict(thing.config), predicts=shapes, own_target=thing.own_target)
        save_tensors(place, thing.state_dict(), {"model": about, "notes": thing.notes})
    elif hasattr(thing, "save"):
        thing.save(place)
    else:
        raise PudNetError(f"A {type(thing).__name__} can't be saved; expected a predicted network or a predictor.")
    return place
