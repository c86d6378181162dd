"""Meta-training of a denoiser's predictor, through the kit's one trainer and cache, and the images that it sees.

Paper [code]: U-Net, Noise2Void loss, one Adam step an episode; CIFAR-10, Animals-10, CIFAR-100, CUB-200, DTD, BSDS500.
Our choice: what a machine has without a download (of the libraries' photographs a class is one, an image a 32-pixel
patch of it); the supervised loss as an option; a base that is meta-trained as a shared U-Net first, also the control.
"""

from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from pudnet_lib.core import PudNetConfig
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.meta import MetaConfig
from pudnet_lib.core.model import SharedConfig
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.denoise.episodes import DenoisingStep, NoisyEpisodeConfig, NoisyEpisodeSampler
from pudnet_lib.images import load_images
from pudnet_lib.images.pool import default_class_split
from pudnet_lib.methods.training import Task, TrainConfig, TrainOutcome, run_folder, train

PHOTOGRAPHS, TEXTURES = "photographs", "gray photographs"
#: Source → (names for meta-training, names held out); those that scikit-image needs no download for.
BUNDLED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    PHOTOGRAPHS: (("astronaut", "coffee", "rocket", "motorcycle", "hubble"), ("cat", "china", "flower")),
    TEXTURES: (("brick", "camera", "coins", "moon", "page", "cell"), ("grass", "gravel")),
}


class Source(NamedTuple):
    """One source's images."""

    name: str
    meta: ImageDataset  # what meta-training may see: training classes
    own: ImageDataset  # the unseen classes' training images: noisy copies give the sketch
    test: ImageDataset  # their other images: the metrics


def load_source(name: str, size: int = 32, channels: int = 3) -> Source:
    """Load a pack, ``"photographs"``, ``"gray photographs"``, another dataset or an image folder, in disjoint parts."""
    if name in BUNDLED:
        # Meta-training sees half-size copies too: at full size these photographs are smoother than most pictures.
        parts = zip(BUNDLED[name], ((1, 2), (1,)), strict=True)
        seen, unseen = (_patches(name, names, size, shrink).with_channels(channels) for names, shrink in parts)
        # Every second patch, as on a chessboard: the test patches are from the same pictures, and none of the own ones.
        all_of_them = torch.arange(len(unseen))
        return Source(name, seen, unseen.subset(all_of_them[::2]), unseen.subset(all_of_them[1::2]))
    train, test = (load_images(name, part, size, channels) for part in ("train", "test"))  # type: ignore[arg-type]
    split = default_class_split(train.name, train.num_classes)
    meta = train.select_classes((*split.train, *split.validation))
    return Source(train.name, meta, train.select_classes(split.unseen), test.select_classes(split.unseen))


@cache
def photograph(name: str) -> np.ndarray:
    """Read a photograph that comes with scikit-image or scikit-learn: (H, W) or (H, W, 3) uint8."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    if name in ("china", "flower"):
        return load_sample_image(f"{name}.jpg")  # type: ignore[no-any-return]
    found = getattr(data, {"hubble": "hubble_deep_field", "motorcycle": "stereo_motorcycle"}.get(name, name))()
    return found[0] if name == "motorcycle" else found  # type: ignore[no-any-return]


@cache
def _patches(source: str, names: tuple[str, ...], size: int, shrink: tuple[int, ...] = (1,)) -> ImageDataset:
    """Cut photographs into patches, in reading order, an odd number a row so that even and odd make a chessboard."""
    cut, labels = [], []
    for (label, name), factor in product(enumerate(names), shrink):
        picture = torch.from_numpy(np.atleast_3d(photograph(name)).copy()).permute(2, 0, 1)  # (C, H, W)
        if factor > 1:
            picture = avg_pool2d(picture.float(), factor).round().to(torch.uint8)
        rows, columns = picture.shape[1] // size, (picture.shape[2] // size - 1) // 2 * 2 + 1
        picture = picture[:, : rows * size, : columns * size]
        tiles = picture.unfold(1, size, size).unfold(2, size, size)  # (C, rows, columns, size, size)
        cut.append(tiles.permute(1, 2, 0, 3, 4).flatten(0, 1))
        labels += [label] * (rows * columns)
    licence = "as shipped with scikit-image and scikit-learn; see their documentation"
    return ImageDataset(torch.cat(cut).contiguous(), torch.tensor(labels), names, source, licence=licence)


#: A denoiser's own default: without an auxiliary classifier's validation, momentum as in the literature on denoising.
DENOISER_META = MetaConfig(steps=4000, learning_rate=1e-3, direct_learning_rate=2e-3, beta1=0.9, validate_every=0,
                           clip_norm=1.0, accelerator="cpu")  # fmt: skip
UNET = PudNetConfig(TargetConfig("unet", 12), dim=64, generator_width=12, residual=True, pooling="mean_std")


@dataclass(frozen=True)
class DenoiserTrainConfig(TrainConfig):
    """The same for a denoiser: a PudNet, or the shared U-Net that is its control.

    Attributes:
        pool: Names or image folders; their training classes are used.
    """

    method: Literal["pudnet", "shared"] = "pudnet"
    model: PudNetConfig | SharedConfig = UNET
    pool: tuple[str, ...] = ("fashion", "emoji", "glyphs", PHOTOGRAPHS, TEXTURES)
    episodes: NoisyEpisodeConfig = field(default_factory=NoisyEpisodeConfig)
    meta: MetaConfig = DENOISER_META
    base_learning_rate: float = 5e-3

    def __post_init__(self) -> None:
        if self.method == "shared" and isinstance(self.model, PudNetConfig):  # its target and seed count
            object.__setattr__(self, "model", SharedConfig(self.model.target, self.model.seed))
        super().__post_init__()


def train_denoiser(config: DenoiserTrainConfig, run_dir: Path | None = None, progress: bool = True) -> TrainOutcome:
    """Meta-train, or load what a finished run left in its folder (by default the cache's); one cut off goes on."""

    @cache
    def pool() -> list[ImageDataset]:
        return [load_source(name, channels=config.model.target.channels).meta for name in config.pool]

    task = Task(lambda seed: NoisyEpisodeSampler(pool(), config.episodes, seed), lambda model, *_: DenoisingStep(model))
    return train(config, run_dir or run_folder(config), progress, task=task)
