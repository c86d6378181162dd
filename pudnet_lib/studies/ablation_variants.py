"""The ablations' variants: what each changes in a PudNet of the paper's plain design.

Paper, Section 4.5 [rec]: no recurrence, α = 0, no auxiliary task, no consistency, number of episodes, sketch size,
target width and depth. Our choice: encoder norm (the released code's fault), pool of sources, generator size,
recalibration; and rivals at several learning rates, since a hypernetwork changes the effective rate of the target's
weights.
"""

from __future__ import annotations

from typing import Any

from pudnet_lib.core.refine import LastBlock

#: Fields that a variant may set besides those of ``TrainConfig``: ``meta.steps_share`` (of the base's steps),
#: ``recalibrate``, and ``sketch`` (images a class that an already meta-trained base looks at).
BESIDES = ("meta.steps_share", "recalibrate", "sketch")

#: Factor → variant → what differs from the base.
FACTORS: dict[str, dict[str, dict[str, Any]]] = {
    "base": {"PudNet": {}},
    "rivals that see no data": {
        "shared network, lr 3e-3": {"kind": "shared", "meta.learning_rate": 3e-3},
        "shared network, lr 1e-2": {"kind": "shared", "meta.learning_rate": 1e-2},
        "shared network, lr 2e-2": {"kind": "shared", "meta.learning_rate": 2e-2},
        "shared network, lr 4e-2": {"kind": "shared", "meta.learning_rate": 4e-2},
        "constant embedding": {"pudnet.embedding": "constant"},
        "constant embedding, lr 3e-3": {"pudnet.embedding": "constant", "meta.learning_rate": 3e-3},
        "constant embedding, lr 2e-2": {"pudnet.embedding": "constant", "meta.learning_rate": 2e-2},
    },
    "learning rate": {
        "lr 1e-3": {"meta.learning_rate": 1e-3},
        "lr 3e-3": {"meta.learning_rate": 3e-3},
        "lr 2e-2": {"meta.learning_rate": 2e-2},
    },
    "recurrence": {
        "plain GRU": {"pudnet.recurrence": "gru"},
        "no recurrence": {"pudnet.recurrence": "none"},
    },
    "α": {"α = 0": {"pudnet.alpha": 0.0}, "α = 0.5": {"pudnet.alpha": 0.5}},
    "losses": {
        "no auxiliary task": {"meta.weights.auxiliary": 0.0},
        "no consistency": {"meta.weights.consistency": 0.0},
        "cosine loss only": {"meta.weights.auxiliary": 0.0, "meta.weights.consistency": 0.0},
    },
    "encoder": {
        "batch norm in the encoder": {"pudnet.encoder_norm": "batch"},
        "pooling: mean and spread": {"pudnet.pooling": "mean_std"},
        "pooling: class means": {"pudnet.pooling": "class"},
    },
    "sketch": {
        "sketch of 1 a class": {"episodes.sketch_per_class": 1},
        "sketch of 30 a class": {"episodes.sketch_per_class": 30},
        "sketch of 100 a class": {"episodes.sketch_per_class": 100},
        "1 a class at prediction": {"sketch": 1},
        "30 a class at prediction": {"sketch": 30},
        "100 a class at prediction": {"sketch": 100},
    },
    "episodes": {
        "1/16 of the episodes": {"meta.steps_share": 1 / 16},
        "1/4 of the episodes": {"meta.steps_share": 0.25},
        "twice the episodes": {"meta.steps_share": 2.0},
        "4 episodes a step": {"meta.episodes_per_step": 4},
    },
    "pool": {
        "fashion alone": {"pool.sources": ("fashion",)},
        "emoji alone": {"pool.sources": ("emoji",)},
        "glyphs alone": {"pool.sources": ("glyphs",)},
    },
    "target": {
        "width 4": {"pudnet.target.width": 4},
        "width 16": {"pudnet.target.width": 16},
        "width 32": {"pudnet.target.width": 32},
        "depth 2": {"pudnet.target.depth": 2},
        "depth 4": {"pudnet.target.depth": 4},
        "ResNet-18": {"pudnet.target.name": "resnet18"},
    },
    "generator": {
        "generator width 16": {"pudnet.generator_width": 16},
        "generator width 64": {"pudnet.generator_width": 64},
        "filters not standardised": {"pudnet.filter_norm": "none"},
        "learned base + residual": {"pudnet.residual": True, "meta.direct_learning_rate": 2e-2},
    },
    "batch norm": {"not recalibrated": {"recalibrate": False}},
    "refinement": {
        "refined on the sketch": {"pudnet.refine": LastBlock(1)},
        "refined thrice": {"pudnet.refine": LastBlock(3)},
    },
}
VARIANTS: dict[str, dict[str, Any]] = {name: change for episode in FACTORS.values() for name, change in episode.items()}

#: The laptop's: one or two of each factor; those of "batch norm" and "at prediction" cost no meta-training.
CHEAP = (
    "PudNet",
    "shared network, lr 1e-2",
    "constant embedding",
    "no recurrence",
    "α = 0",
    "no auxiliary task",
    "no consistency",
    "batch norm in the encoder",
    "1 a class at prediction",
    "100 a class at prediction",
    "1/4 of the episodes",
    "glyphs alone",
    "width 4",
    "depth 2",
    "generator width 16",
    "not recalibrated",
    "refined on the sketch",
)
