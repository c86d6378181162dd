"""Batches and clock of a training on one dataset. Our choice.

Images lie in RAM as one uint8 tensor, so that a batch is one indexing operation and no worker process is needed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor


class Batches:
    """Shuffled indices of every batch of every epoch; a last batch of one image is left out (batch norm needs two).

    Args:
        images: N, number of training images.
        size: Images a batch.
        epochs: Passes over the images.
        seed: Seed of ``generator``, which shuffles and may be used for augmentation, too.
    """

    def __init__(self, images: int, size: int, epochs: int, seed: int) -> None:
        self.images, self.size, self.epochs = images, size, epochs
        self.generator = torch.Generator().manual_seed(seed)
        self.per_epoch = max(1, images // self.size + (images % self.size > 1 if self.size > 1 else 0))
        self.total = self.epochs * self.per_epoch

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.epochs):
            yield from torch.randperm(self.images, generator=self.generator).split(self.size)[: self.per_epoch]


class Clock:
    """Seconds of training; waits for the GPU when it stops.

    Args:
        device: Where the training runs.
        limit: Seconds that may be used up; 0 for no limit.
    """

    def __init__(self, device: torch.device, limit: float) -> None:
        self.seconds, self._limit, self._cuda = 0.0, limit, device.type == "cuda"
        self._began: float | None = None

    def start(self) -> None:
        """Let it run."""
        self._began = time.perf_counter()

    def stop(self) -> None:
        """Hold it; nothing happens if it stands."""
        if self._began is not None:
            if self._cuda:
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - self._began
            self._began = None

    def share(self) -> float:
        """Share of the limit that is used up; 0 without a limit."""
        running = time.perf_counter() - self._began if self._began is not None else 0.0
        return (self.seconds + running) / self._limit if self._limit else 0.0
