"""Networks that are trained on each dataset: from scratch, a new head on fixed features, and fine-tuned predictions.

The rivals of paper Section 4 [rec]; gradient centralization (GC) is in its abstract [abs]. Same ConvNet, same images,
one training loop; batches of 32, because an episode holds a hundred images, not thousands.
"""

from functools import partial
from typing import Any

from torch import nn

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import predict
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import unknown_name
from pudnet_lib.methods.registry import register
from pudnet_lib.supervised import Head, ScratchConfig, finetune, train_from_scratch

OPTIMISERS = {"GC": "sgd", "SGD": "sgd", "Adam": "adam"}


def training(
    optimiser: str = "Adam", lr: float = 0.0, epochs: int = 30, batch_size: int = 32, **more: Any
) -> ScratchConfig:
    """The training of one episode; ``lr`` 0 takes 0.1 for SGD and GC, 3e-3 for Adam."""
    if optimiser not in OPTIMISERS:
        raise unknown_name("optimiser", optimiser, OPTIMISERS)
    own = {"optimiser": OPTIMISERS[optimiser], "gradient_centralization": optimiser == "GC", "learning_rate": lr}
    own |= {"epochs": epochs, "batch_size": batch_size, "evaluations": 1, "accelerator": "cpu"}
    return ScratchConfig(**(own | more))  # type: ignore[arg-type]


def scratch(
    dataset: ImageDataset, target: TargetConfig, model: ParameterModel | None = None, **options: Any
) -> nn.Module:
    """Train the target network from random parameters; ``options`` as for ``training``."""
    return train_from_scratch(dataset, None, training(target=target, **options)).network


def tuned(
    dataset: ImageDataset, model: ParameterModel, target: TargetConfig, head: Head = "means", **options: Any
) -> nn.Module:
    """Predict a network for a dataset and go on training it there; ``options`` as for ``training``."""
    return finetune(predict(model, dataset), dataset, None, training(**options), head=head).network


_OPTIONS = ("optimiser", "epochs", "batch_size", "accelerator")
register("scratch", scratch, options=_OPTIONS, slow=True)
register("linear head", partial(tuned, head="random", trainable="probe"), options=_OPTIONS, slow=True)
register("fine-tuned", tuned, options=_OPTIONS, slow=True)
