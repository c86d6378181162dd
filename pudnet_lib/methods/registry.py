"""The registry: each method says in its own file how it is built and how it learns a dataset; a recipe says the rest.

Our choice. A ``Recipe`` holds every number *as it is used*: nothing is multiplied or looked up behind it. A notebook
writes its methods as one dict of recipes, and adding a baseline touches the baseline's own file alone.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn

from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError, unknown_name

#: The paper's three losses, and the one that was better on held-out training classes of a ConvNet-3.
PAPER_LOSSES, CLASS_LOSS = LossWeights(1, 1, 1), LossWeights(1, 0, 0)


@dataclass(frozen=True)
class Method:
    """A registry entry: how a method is built, meta-trained and fitted.

    ``fit(dataset, model=…, target=…, seed=…, sketch=…, **options)`` gives a network from uint8 images (N, C, H, W) to
    logits (N, K); ``model`` is the meta-trained one, None where there is none.
    """

    name: str  # by which recipes call it
    fit: Callable[..., nn.Module]
    model: type[ParameterModel] | None = None  # class of the meta-trained model; None if nothing is meta-trained
    config: type[Any] | None = None  # frozen, with fields target and seed; a recipe's options are its other fields
    derive: Callable[..., ParameterModel] | None = None  # turns the model of ``Recipe.start`` into another, untrained
    options: tuple[str, ...] = ()  # what a recipe may set, where that is not the config's fields
    stages: tuple[LossWeights, ...] = ()  # losses of equal parts of meta-training; () for the recipe's own throughout
    slow: bool = False  # takes long on every episode (gradient steps, a large network): is measured on fewer of them
    conditioned: bool = False  # looks at the dataset, so that its sketch can be swapped

    @property
    def tuned(self) -> bool:
        """Whether it takes gradient steps on each episode, at a rate of its own."""
        return "epochs" in self.options

    @property
    def known(self) -> tuple[str, ...]:
        """Names of the options."""
        fields = () if self.config is None else tuple(f.name for f in dataclasses.fields(self.config))
        return self.options + tuple(name for name in fields if name not in ("target", "seed"))


_METHODS: dict[str, Method] = {}


def register(name: str, fit: Callable[..., nn.Module], **facts: Any) -> Method:
    """Add a method to the registry, or replace the one of that name; see ``Method`` for the facts."""
    _METHODS[name] = Method(name, fit, **facts)
    return _METHODS[name]


def method(name: str) -> Method:
    """Find a method by its name."""
    if name not in _METHODS:
        import pudnet_lib.methods as package

        for module in pkgutil.iter_modules(package.__path__):
            import_module(f"pudnet_lib.methods.{module.name}")
    if name not in _METHODS:
        raise unknown_name("method", name, _METHODS)
    return _METHODS[name]


class Options(dict[str, Any]):
    """A recipe's options: a dict that can be hashed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(sorted(self.items())))


@dataclass(frozen=True, init=False)
class Recipe:
    """How a method is built, meta-trained and fitted, every number as it is used.

    Args:
        method: The registry's name, such as ``"pudnet"``, ``"shared"``, ``"protonet"``, ``"scratch"``, ``"1-NN"``.
        lr: Adam's peak rate of the hypernetwork, or of a rival's own modules; of a network that is trained on each
            episode, its peak rate.
        target_lr: Peak rate of the tensors that stand in the target network as they are; 0 takes ``lr``.
        losses: Weights of the three losses.
        base: Share of the steps in which a residual design's base is first meta-trained as a shared network.
        base_lr: Peak rate of that stage.
        start: Another recipe's name in the same dict, whose meta-trained network this one starts from.
        **options: What the method takes besides: fields of its config.

    Raises:
        PudNetError: If the method or an option is unknown, or a share is not in [0, 1).
    """

    method: str
    lr: float
    target_lr: float
    losses: LossWeights
    base: float
    base_lr: float
    start: str
    options: Options

    def __init__(
        self, method: str, *, lr: float = 1e-3, target_lr: float = 0.0, losses: LossWeights = CLASS_LOSS,
        base: float = 0.0, base_lr: float = 0.0, start: str = "", **options: Any,
    ) -> None:  # fmt: skip
        vars(self).update(
            method=method, lr=lr, target_lr=target_lr, losses=losses, base=base, base_lr=base_lr, start=start,
            options=Options(options),
        )  # fmt: skip
        known = self.kind.known
        for name in options:
            if name not in known:
                raise unknown_name(f"option of {method}", name, known)
        if not 0 <= base < 1 or lr < 0 or target_lr < 0 or (base and not base_lr > 0):
            raise PudNetError(f"Recipe({method!r}): base is a share below 1 and needs base_lr; rates are not negative.")

    def but(self, **changed: Any) -> Recipe:
        """Copy the recipe with other values; options are given by their own names."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "options"}
        return Recipe(**(own | dict(self.options) | changed))

    @property
    def kind(self) -> Method:
        """The registry's entry."""
        return method(self.method)

    def config(self, target: TargetConfig, seed: int) -> Any:
        """The model's config for a target and a seed."""
        return self.kind.config(target=target, seed=seed, **self.options)  # type: ignore[misc]


def recipe_table(methods: Mapping[str, Recipe]) -> str:
    """Write a dict of recipes as a text table: every rate, loss and option as it is used."""
    rows = [("method", "built by", "lr", "target lr", "losses", "also")]
    for name, recipe in methods.items():
        trained, kind = recipe.kind.model is not None, recipe.kind
        rate = f"{recipe.lr:g}" if trained or kind.tuned else "-"
        of_target = f"{recipe.target_lr or recipe.lr:g}" if trained else "-"
        losses = [f"{w.cosine:g}/{w.auxiliary:g}/{w.consistency:g}" for w in kind.stages or (recipe.losses,)]
        also = [f"from {recipe.start}"] if recipe.start else []
        also += [f"base {recipe.base:.3g} of the steps at {recipe.base_lr:g}"] if recipe.base else []
        also += [f"{option}={_short(value)}" for option, value in recipe.options.items()]
        rows.append((name, recipe.method, rate, of_target, " then ".join(losses) if trained else "-", ", ".join(also)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)).rstrip() for row in rows)


def _short(value: Any) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return f"{type(value).__name__}({', '.join(f'{k} {_short(v)}' for k, v in inner.items() if v is not None)})"
    return f"{value:g}" if isinstance(value, float) else str(value)
