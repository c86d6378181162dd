"""AHRU, the adaptive hyper recurrent unit: an embedding to one code a layer.

Paper, Section 3.2, "weight generators share information through a recurrence"; details from the authors' code: a GRU of
G = 2 layers, h_0 the embedding, a_t = ReLU(W_o o_t) the next input, the hidden state LayerNormed, and at every layer
the dataset mixed in again: z_t = LN_t((1 - α) a_t + α ē), not fed back. Deviation: a_0 is a parameter (in the released
code it is neither parameter nor buffer, so that a reloaded model predicts other weights).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Recurrence = Literal["ahru", "gru", "none"]
_CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")  # the order in which torch.gru_cell takes them


class AHRU(nn.Module):
    """Embeddings to codes."""

    def __init__(
        self, layers: int, dim: int, states: int = 2, alpha: float = 0.1, recurrence: Recurrence = "ahru",
        normalise_codes: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalise_codes = normalise_codes
        self.layers, self.alpha, self.recurrence = layers, alpha if recurrence == "ahru" else 0.0, recurrence
        self.norm_scale = nn.Parameter(torch.ones(layers, dim))  # LN_t: one affine a layer
        self.norm_shift = nn.Parameter(torch.zeros(layers, dim))
        if recurrence == "none":
            bound = dim**-0.5
            self.first = nn.Parameter(torch.empty(layers, dim, dim).uniform_(-bound, bound))
            self.second = nn.Parameter(torch.empty(layers, dim, dim).uniform_(-bound, bound))
            return
        self.start = nn.Parameter(torch.randn(dim) * dim**-0.5)  # a_0
        self.cells = nn.ModuleList(nn.GRUCell(dim, dim) for _ in range(states))
        self.out = nn.Linear(dim, dim)
        if recurrence == "ahru":
            self.hidden_norm = nn.LayerNorm(dim)

    def forward(self, embedding: Tensor) -> Tensor:
        """Embeddings of B datasets (B, G, D) to their codes z (B, L, D)."""
        codes, mean = self.outputs(embedding), embedding.mean(1)  # (B, L, D), (B, D)
        if self.normalise_codes:
            codes = F.layer_norm(codes, codes.shape[-1:])
        mixed = (1 - self.alpha) * codes + self.alpha * mean[:, None] if self.alpha else codes
        return F.layer_norm(mixed, mixed.shape[-1:]) * self.norm_scale + self.norm_shift

    def outputs(self, embedding: Tensor) -> Tensor:
        """What the recurrence gives before the dataset is mixed in: a_1 … a_L, (B, L, D)."""
        if self.recurrence == "none":
            hidden = torch.einsum("bd,lde->ble", embedding.mean(1), self.first).relu()
            return torch.einsum("bld,lde->ble", hidden, self.second)
        return torch.stack(self._steps(embedding), 1)

    def _steps(self, embedding: Tensor) -> list[Tensor]:
        # The functions and not the modules: the loop is so short that the modules' calls were a third of its time.
        hidden = list(embedding.unbind(1))  # G × (B, D)
        cells = [[getattr(c, name) for name in _CELL] for c in self.cells]
        norm = self.hidden_norm if self.recurrence == "ahru" else None
        x = self.start.expand_as(hidden[0])  # a_0
        codes = []
        for _ in range(self.layers):
            for g, cell in enumerate(cells):
                x = torch.gru_cell(x, hidden[g], *cell)
                if norm is not None:
                    x = torch.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
                hidden[g] = x
            x = F.linear(x, self.out.weight, self.out.bias).relu()  # a_t, the next input
            codes.append(x)
        return codes
