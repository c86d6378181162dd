"""ParameterModel: the contract of everything that supplies a target network's parameters; SharedNetwork, its simplest.

PudNet, the shared network (a control) and every baseline are one: a module that maps a sketch to parameters. Trainer,
prediction and evaluation know this contract only, so all are treated alike.
"""

import copy
import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pudnet_lib.core.dataset import normalise
from pudnet_lib.core.heads import class_means, cosine_logits
from pudnet_lib.core.layout import ParameterLayout, Unsupported
from pudnet_lib.core.norms import BatchNorm, swap
from pudnet_lib.core.refine import LastBlock, refine
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError, unknown_name

Parameters = dict[str, Tensor]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with the CPU's generator seeded, and put the global generator back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def batch_statistics_template(target: nn.Module) -> nn.Module:
    """Copy a target's structure, parameters on ``meta``, batch norms on the batch's own statistics: no side effect."""
    template = copy.deepcopy(target).requires_grad_(True)
    for layer in template.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
        for name, tensor in layer.named_parameters(recurse=False):
            setattr(layer, name, nn.Parameter(tensor.detach().to("meta")))
    swap(template, nn.BatchNorm2d, BatchNorm)
    return template.train()


class ParameterModel(nn.Module):
    """A module that maps a sketch to a target network's parameters.

    Args:
        target: The target network; copied, never changed. Its present values initialise what is learned and shared.
        unsupported: What to do with tensors that can't be predicted; see ``ParameterLayout.of``.

    Attributes:
        config: The frozen dataclass of the kind of model.
        layout: Which of the target's tensors are predicted.
        feature_dim: F, the length of the target's features.
        scale: τ, the learnable factor of the cosine, initially 10 ([code]).
        own_target: Whether the target is a module of the user's own.
        name: Of a predictor that comes with the kit; goes into the origin of what it predicts.
        notes: How it was trained, kept in its file.
    """

    config: Any
    own_target: bool = False
    name: str = ""

    def __init__(self, target: nn.Module, unsupported: Unsupported = "refuse") -> None:
        super().__init__()
        self.notes: dict[str, Any] = {}
        self.layout = ParameterLayout.of(target, unsupported)
        # In a tuple, so that its meta tensors are no part of this module's state_dict.
        self._template = (batch_statistics_template(target),)
        values = dict(target.named_parameters())
        names = (*self.layout.shared, *self.layout.kept)
        self.shared = nn.ParameterDict({n.replace(".", "/"): values[n].detach().clone() for n in names})
        self.buffer_names = [n for n, _ in self.template.named_buffers()]
        for name, tensor in self.template.named_buffers():
            self.register_buffer(f"kept/{name.replace('.', '/')}", tensor.clone())
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.feature_dim = _feature_dim(target)

    def forward(self, sketch: Tensor, labels: Tensor | None = None) -> Parameters:
        """Predict a target network's parameters."""
        parameters = self.initial(sketch, labels)
        if self.refine is None or self.training:
            return parameters
        return refine(self, parameters, sketch, labels, self.refine)[0]

    def initial(self, sketch: Tensor, labels: Tensor | None = None) -> Parameters:
        """The prediction before it is refined; what a kind of model has to supply."""
        raise NotImplementedError

    @property
    def refine(self) -> LastBlock | None:
        """How predictions are refined on the labelled images; part of the config, and may be set."""
        return getattr(self.config, "refine", None)

    @refine.setter
    def refine(self, value: LastBlock | None) -> None:
        self.config = dataclasses.replace(self.config, refine=value)

    @property
    def sees_support(self) -> bool:
        """Whether its sketch is all labelled images of an episode, the support included."""
        return self.refine is not None

    @property
    def template(self) -> nn.Module:
        """The target's structure, its parameters on ``meta``, its batch norms on the batch's own statistics."""
        return self._template[0]

    def shared_parameters(self) -> Parameters:
        """The learned tensors that are the same for every dataset, by their names in the target."""
        return {name.replace("/", "."): tensor for name, tensor in self.shared.items()}

    def direct_parameters(self) -> list[nn.Parameter]:
        """The learned tensors that stand in the target as they are; the trainer may give them their own rate."""
        return list(self.shared.parameters())

    def features(self, parameters: Parameters, images: Tensor) -> Tensor:
        """Features (N, F) of images (N, C, H, W) under given parameters, on this batch's statistics. No side effect."""
        out: Tensor = functional_call(self.template, parameters | self.kept_buffers(), (normalise(images),))
        return out

    def class_logits(self, support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
        """Logits (Q, K) of query features (Q, F): cosine to the means of the support's (M, F), detached ([code])."""
        return cosine_logits(query, class_means(support.detach(), labels, num_classes), self.scale)

    def materialise(self, parameters: Parameters) -> nn.Module:
        """Put parameters, without a copy, into a new network in evaluation mode; running statistics are new."""
        network = copy.deepcopy(self.template)
        device = self.device
        for prefix, layer in network.named_modules():
            dot = f"{prefix}." if prefix else ""
            for name in [n for n, _ in layer.named_parameters(recurse=False)]:
                setattr(layer, name, nn.Parameter(parameters[dot + name].detach()))
            if isinstance(layer, nn.BatchNorm2d):
                layer.track_running_stats = True
                layer.running_mean = torch.zeros(layer.num_features, device=device, dtype=self.scale.dtype)
                layer.running_var = torch.ones(layer.num_features, device=device, dtype=self.scale.dtype)
                layer.num_batches_tracked = torch.tensor(0, device=device)
        for name, tensor in self.kept_buffers().items():
            owner, _, short = name.rpartition(".")
            setattr(network.get_submodule(owner), short, tensor.clone())
        swap(network, BatchNorm, nn.BatchNorm2d)
        return network.eval()

    def kept_buffers(self) -> Parameters:
        """Buffers of the user's own target, by their names in it."""
        return {n: self.get_buffer(f"kept/{n.replace('.', '/')}") for n in self.buffer_names}

    def __repr__(self) -> str:
        kind, own = type(self).__name__ + (f" {self.name!r}" if self.name else ""), count(self.parameters())
        target = "your network" if self.own_target else f"a {self.config.target.title}"
        return f"{kind}: predicts {target}, {own:,} parameters of its own"

    def _repr_html_(self) -> str:
        return f"<details><summary>{escape(repr(self))}</summary><pre>{escape(self.describe())}</pre></details>"

    def describe(self) -> str:
        """The model as a short table: part, what it maps to what, number of parameters."""
        rows = [*self.parts(), ("learned for all", f"{len(self.shared)} tensors", count(self.shared.values()))]
        rows.append(("scale of the cosine", "τ", 1))
        widths = [max(len(a) for a, _, _ in rows), max(len(b) for _, b, _ in rows)]
        lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {n:>10,}" for a, b, n in rows]
        target = "your network" if self.own_target else f"{self.config.target.name}, width {self.config.target.width}"
        total, predicted = count(self.parameters()), self.layout.num_predicted
        head = f"{type(self).__name__}: {total:,} parameters, for {predicted:,} convolution weights of {target}"
        return "\n".join([head, *lines])

    def parts(self) -> list[tuple[str, str, int]]:
        """Rows of ``describe``: what stands in the target as it is, layer by layer."""
        return [(t.name, f"({', '.join(map(str, t.shape))})", t.numel) for t in self.layout.predicted]

    @property
    def channels(self) -> int | None:
        """C of the images; None for a user's own target, which tells by itself."""
        return None if self.own_target else self.config.target.channels

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.scale.device


def count(tensors: Iterable[Tensor]) -> int:
    """Number of scalars."""
    return sum(t.numel() for t in tensors)


def _feature_dim(target: nn.Module) -> int:
    if isinstance(getattr(target, "feature_dim", None), int):
        return int(target.feature_dim)  # type: ignore[arg-type]
    conv = next((m for m in target.modules() if isinstance(m, nn.Conv2d)), None)
    channels = conv.in_channels if conv is not None else 3
    with torch.no_grad():
        probe = batch_statistics_template(target).to("meta")
        shape = probe(torch.zeros(2, channels, 64, 64, device="meta")).shape
    if len(shape) != 2:
        raise PudNetError(
            f"{type(target).__name__} maps images to {tuple(shape)}; expected features (N, F). Pool and flatten at "
            "its end, and leave out the classifier: the class means take its place."
        )
    return int(shape[1])


def configured(
    kind: type[Any], config: Any, target: nn.Module | None, switches: dict[str, Any]
) -> tuple[Any, nn.Module | None]:
    """Put a model's config together: a config, or a target network in its place, and fields by name over it."""
    known = [f.name for f in dataclasses.fields(kind)]
    for name in switches:
        if name not in known:
            raise unknown_name(f"field of {kind.__name__}", name, known)
    if isinstance(config, nn.Module):
        target, config = config, None
        if isinstance(getattr(target, "config", None), TargetConfig):
            switches = {"target": target.config, **switches}
    return dataclasses.replace(config or kind(), **switches), target


@dataclass(frozen=True)
class SharedConfig:
    """The shared network's configuration: the target network, the seed of its initial weights, the refinement."""

    target: TargetConfig = field(default_factory=TargetConfig)
    seed: int = 0
    refine: LastBlock | None = None


class SharedNetwork(ParameterModel):
    """The same learned parameters for every sketch: what PudNet adds is its accuracy minus this one's."""

    def __init__(
        self, config: SharedConfig | nn.Module | None = None, target: nn.Module | None = None,
        unsupported: Unsupported = "refuse", **switches: Any,
    ) -> None:  # fmt: skip
        config, target = configured(SharedConfig, config, target, switches)
        config = cast(SharedConfig, config)
        with seeded(config.seed):
            module = build_target(config.target) if target is None else target
            super().__init__(module, unsupported)
            self.config = config
            self.own_target = target is not None and getattr(target, "config", None) != config.target
            values = dict(module.named_parameters())
            self.weights = nn.ParameterDict(
                {t.name.replace(".", "/"): values[t.name].detach().clone() for t in self.layout.predicted}
            )

    def direct_parameters(self) -> list[nn.Parameter]:
        """All of the target's tensors."""
        return [*super().direct_parameters(), *self.weights.parameters()]

    def initial(self, sketch: Tensor, labels: Tensor | None = None) -> Parameters:
        """Return the learned parameters; the sketch is not looked at."""
        return {n.replace("/", "."): w for n, w in self.weights.items()} | self.shared_parameters()
