"""PudNet: a sketch of a dataset in, all convolution weights of a target network out, in one forward pass.

Paper, Section 3.2 and its Figure 2: dataset encoder → AHRU → one weight generator a layer. The parts are in the files
beside this one, each with its deviations; ``PudNetConfig`` holds every switch of the ablations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn

from pudnet_lib.core.ahru import AHRU, Recurrence
from pudnet_lib.core.encoder import DatasetEncoder, EncoderNorm, Pooling
from pudnet_lib.core.generator import FilterNorm, WeightGenerator, hidden_of_layers
from pudnet_lib.core.layout import PredictedTensor, Unsupported
from pudnet_lib.core.model import ParameterModel, Parameters, configured, count, seeded
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError, unknown_name

Embedding = Literal["dataset", "constant"]
_CHOICES = {
    "recurrence": get_args(Recurrence),
    "embedding": get_args(Embedding),
    "pooling": get_args(Pooling),
    "encoder_norm": get_args(EncoderNorm),
    "filter_norm": get_args(FilterNorm),
}


@dataclass(frozen=True)
class PudNetConfig:
    """All of PudNet's switches; the defaults are the paper's plain design.

    Attributes:
        target: The target network.
        dim: D, length of embeddings and codes ([code]: 128).
        states: G, layers of the recurrence ([code]: 2).
        alpha: α, the share of the embedding in every code ([code]: 0.1).
        recurrence: ``"ahru"``, ``"gru"`` or ``"none"``.
        embedding: ``"dataset"``, or ``"constant"`` for a hypernetwork that sees no data (a rival).
        pooling: How image codes become an embedding: ``"mean"``, ``"mean_std"`` or ``"class"``.
        generator_width: Channels before a generator's last step ([code]: 16).
        filter_norm: ``"none"`` or ``"standardise"``.
        residual: Learned base weights plus a generated residual.
        refine: Gradient steps on the labelled images after the first prediction (our choice; none in the paper).
        normalise_codes: Bring a_t to unit variance before the embedding is mixed in (our choice): at a high learning
            rate a_t grows until the embedding drowns in it, and the hypernetwork sees no data any more.
        seed: Seed of the initial weights.
        share_generators: Layers of the same shape share a generator; a deep target then needs less memory (our choice).
        encoder_norm: ``"layer"``, or ``"batch"`` for the released code's fault, as an ablation.
    """

    target: TargetConfig = field(default_factory=TargetConfig)
    dim: int = 128
    states: int = 2
    alpha: float = 0.1
    recurrence: Recurrence = "ahru"
    embedding: Embedding = "dataset"
    pooling: Pooling = "mean"
    generator_width: int = 16
    filter_norm: FilterNorm = "none"
    residual: bool = False
    refine: LastBlock | None = None
    normalise_codes: bool = False
    seed: int = 0
    share_generators: bool = False
    encoder_norm: EncoderNorm = "layer"

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown_name(name, str(getattr(self, name)), known)
        if not 0 <= self.alpha <= 1:
            raise PudNetError(f"PudNetConfig.alpha is {self.alpha}; expected a share between 0 and 1.")
        if min(self.dim, self.states, self.generator_width) < 1:
            raise PudNetError("PudNetConfig: dim, states and generator_width must be at least 1.")


class PudNet(ParameterModel):
    """The hypernetwork.

    ``PudNet(ConvNet3(width=4), alpha=0.1)`` and ``PudNet(PudNetConfig(TargetConfig("convnet3", 4), alpha=0.1))`` are
    the same.

    Args:
        config: Its switches; or the target network itself, the switches then by name.
        target: A target network of the user's own, instead of ``config.target``; it is copied, never changed.
        unsupported: What to do with tensors that can't be predicted; see ``ParameterLayout.of``.
        **switches: Fields of ``PudNetConfig``, over those of ``config``.

    Raises:
        PudNetError: If there is no such switch; the message has the nearest name.
    """

    def __init__(
        self, config: PudNetConfig | nn.Module | None = None, target: nn.Module | None = None,
        unsupported: Unsupported = "refuse", **switches: Any,
    ) -> None:  # fmt: skip
        config, target = configured(PudNetConfig, config, target, switches)
        config = cast(PudNetConfig, config)
        with seeded(config.seed):
            own = isinstance(target, nn.Module)
            module = target if isinstance(target, nn.Module) else build_target(config.target)
            super().__init__(module, unsupported)
            self.config, self.own_target = config, own and getattr(target, "config", None) != config.target
            layers = len(self.layout.predicted)
            if config.embedding == "constant":
                self.constant = nn.Parameter(torch.randn(config.states, config.dim))
            else:
                self.encoder = DatasetEncoder(
                    config.dim, config.states, config.target.channels, config.pooling, config.encoder_norm
                )
            self.ahru = AHRU(layers, config.dim, config.states, config.alpha, config.recurrence, config.normalise_codes)
            self.generators = nn.ModuleList(_generators(self.layout.predicted, config))
            if config.residual:  # start where a shared network of the same seed starts
                self._set_bases(dict(module.named_parameters()))

    def embed(self, sketch: Tensor, labels: Tensor | None = None) -> Tensor:
        """Embed a sketch (S, C, H, W), with labels (S,) for class-aware pooling: (G, D)."""
        if self.config.embedding == "constant":
            return self.constant
        self.check(sketch)
        embedding: Tensor = self.encoder(sketch, labels)
        return embedding

    def check(self, sketch: Tensor) -> None:
        """Refuse a sketch of another shape or with pixels that are no numbers."""
        if sketch.ndim != 4 or sketch.shape[1] != self.config.target.channels:
            raise PudNetError(
                f"The sketch has shape {tuple(sketch.shape)}; expected (S, {self.config.target.channels}, H, W). "
                f"Use ImageDataset.with_channels({self.config.target.channels})."
            )
        if sketch.is_floating_point() and not bool(torch.isfinite(sketch).all()):
            raise PudNetError("The sketch holds NaN or infinite pixels; expected [0, 1]. Remove those images.")

    def adopt(self, base: ParameterModel) -> None:
        """Start a residual design from a meta-trained shared network of its target: its weights become the bases."""
        with torch.no_grad():
            self._set_bases(base(torch.zeros(1, self.config.target.channels, 32, 32)))
        self.shared.load_state_dict(base.shared.state_dict())
        self.scale.data.copy_(base.scale)

    def _set_bases(self, weights: Mapping[str, Tensor]) -> None:
        for tensor, generator in zip(self.layout.predicted, self.generators, strict=True):
            if not isinstance(generator, WeightGenerator) or generator.base is None:
                raise PudNetError("Only a PudNet with residual=True has learned bases to start from.")
            if tensor.name not in weights or weights[tensor.name].shape != generator.base.shape:
                raise PudNetError(f"The base has no tensor {tensor.name!r} of shape {tuple(generator.base.shape)}.")
            generator.base.data.copy_(weights[tensor.name])

    def direct_parameters(self) -> list[nn.Parameter]:
        """Batch norm's and biases, and the learned bases of a residual design."""
        bases = [g.base for g in self.generators if isinstance(g, WeightGenerator) and g.base is not None]
        return [*super().direct_parameters(), *bases]

    def parts(self) -> list[tuple[str, str, int]]:
        """Rows of ``describe``: the paper's three parts; a generator's count holds a learned base."""
        g, d, layers = self.config.states, self.config.dim, len(self.layout.predicted)
        if self.config.embedding == "constant":
            first = ("constant embedding", f"({g}, {d})", self.constant.numel())
        else:
            sketch = f"(S, {self.config.target.channels}, H, W) -> ({g}, {d})"
            first = ("dataset encoder", sketch, count(self.encoder.parameters()))
        rows = [first, ("AHRU", f"({g}, {d}) -> ({layers}, {d})", count(self.ahru.parameters()))]
        for tensor, generator in zip(self.layout.predicted, self.generators, strict=True):
            shapes = f"({d},) -> ({', '.join(map(str, tensor.shape))})"
            rows.append((f"generator of {tensor.name}", shapes, count(generator.parameters())))
        return rows

    def generate(self, embeddings: Tensor) -> Parameters:
        """Embeddings of B datasets (B, G, D) to their predicted tensors, name to (B, *shape)."""
        codes = self.ahru(embeddings)  # (B, L, D)
        generators: list[WeightGenerator] = list(self.generators)  # type: ignore[arg-type]
        layers = zip(self.layout.predicted, generators, hidden_of_layers(generators, codes), strict=True)
        return {tensor.name: generator.weight(hidden) for tensor, generator, hidden in layers}

    def initial(self, sketch: Tensor, labels: Tensor | None = None) -> Parameters:
        """Predict all parameters of the target in one forward pass."""
        generated = self.generate(self.embed(sketch, labels)[None])
        return {name: weight[0] for name, weight in generated.items()} | self.shared_parameters()


#: A plain design whose predictions differ by less than this share of their length has collapsed: it sees no data.
COLLAPSED = 0.01


class Liveness(NamedTuple):
    """What tells a living hypernetwork from a collapsed one, over some sketches."""

    spread: float
    dead: float
    code_norm: float
    embedding_norm: float


def liveness(model: PudNet, sketches: Sequence[tuple[Tensor, Tensor | None]]) -> Liveness:
    """How much of what a hypernetwork sees reaches the weights, on two sketches or more, with labels or None."""
    with torch.no_grad():
        embeddings = torch.stack([model.embed(images, labels) for images, labels in sketches])  # (B, G, D)
        weights = torch.cat([w.flatten(1) for w in model.generate(embeddings).values()], 1)  # (B, predicted scalars)
        codes, alpha = model.ahru.outputs(embeddings), model.ahru.alpha  # (B, L, D)
        mean = weights.mean(0)
        spread = (weights - mean).square().sum(1).mean().sqrt() / mean.norm()
        lengths = (1 - alpha) * codes.norm(dim=-1).mean(), alpha * embeddings.mean(1).norm(dim=-1).mean()
        return Liveness(float(spread), float((codes == 0).float().mean()), *map(float, lengths))


def _generators(tensors: Sequence[PredictedTensor], config: PudNetConfig) -> list[WeightGenerator]:
    """One generator a layer; where they are shared, layers of one shape hold the same parameters."""
    built: list[WeightGenerator] = []
    first: dict[object, WeightGenerator] = {}
    for tensor in tensors:
        shape = (tensor.shape, tensor.transposed)
        like = first.get(shape) if config.share_generators else None
        built.append(
            WeightGenerator(tensor, config.dim, config.generator_width, config.filter_norm, config.residual, like)
        )
        first.setdefault(shape, built[-1])
    return built
