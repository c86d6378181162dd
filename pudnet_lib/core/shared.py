"""The shared network: the same ConvNet, meta-trained on the same episodes and losses, without a hypernetwork.

A control, not in the paper (our choice): what PudNet adds is its accuracy minus this one's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from pudnet_lib.core.layout import Unsupported
from pudnet_lib.core.model import ParameterModel, Parameters, seeded
from pudnet_lib.core.targets import TargetConfig, build_target


@dataclass(frozen=True)
class SharedConfig:
    """The shared network's configuration.

    Attributes:
        target: The target network.
        seed: Seed of the initial weights.
    """

    target: TargetConfig = field(default_factory=TargetConfig)
    seed: int = 0


class SharedNetwork(ParameterModel):
    """Returns the same learned parameters for every sketch.

    Args:
        config: Which network.
        target: A target network of the user's own, instead of ``config.target``.
        unsupported: What to do with tensors that PudNet could not predict.
    """

    def __init__(
        self,
        config: SharedConfig | None = None,
        target: nn.Module | None = None,
        unsupported: Unsupported = "refuse",
    ) -> None:
        config = config or SharedConfig()
        with seeded(config.seed):
            module = build_target(config.target) if target is None else target
            super().__init__(module, unsupported)
            self.config, self.own_target = config, target is not None
            values = dict(module.named_parameters())
            self.weights = nn.ParameterDict(
                {t.name.replace(".", "/"): values[t.name].detach().clone() for t in self.layout.predicted}
            )

    def direct_parameters(self) -> list[nn.Parameter]:
        """All of the target's tensors."""
        return [*super().direct_parameters(), *self.weights.parameters()]

    def forward(self, sketch: Tensor, labels: Tensor | None = None) -> Parameters:
        """Return the learned parameters; the sketch is not looked at."""
        return {n.replace("/", "."): w for n, w in self.weights.items()} | self.shared_parameters()
