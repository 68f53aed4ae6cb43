"""Roles of the settings of a training: which leave its weights alone, which are newer than old runs, which cached
features refuse, and the section of the help for each.
"""

from __future__ import annotations

from typing import Any

# what a training did that is older than a choice, where that is not the choice's default
BEFORE: dict[str, Any] = {"train_on": "train"}

# what may differ when a run is resumed: it does not enter the weights. Which tasks leave does, but a run compares the
# tasks themselves, not how they were spelt.
INCIDENTAL = frozenset(
    {
        "shards",
        "leave_out",
        "workers",
        "device",
        "checkpoint_every",
        "validate_every",
        "log_every",
        "log_cosines",
        "accumulate",
        "graph",
        "skip_corrupt",
        "resident",
    }
)
OPTIONAL = frozenset(
    {
        "tasks",
        "drop",
        "weights_key",
        "train_on",
        "joint",
        "backbone_options",
        "tune",
        "features",
        "layer_decay",
        "checkpointing",
        "optimizer",
        "schedule",
        "ema",
        "label_smoothing",
        "temperature",
        "task_weights",
        "class_balanced",
        "rotations",
        "stain_jitter",
        "colour_jitter",
        "batchnorm",
        "sync_batchnorm",
        "compile",
        "stream",
        "dense",
        "loss_scale",
        "gradients",
    }
)

# settings that --features cached refuses, and why
AUGMENTS = "which changes the images of each batch"
NOT_CACHED = {
    "rotations": AUGMENTS,
    "stain_jitter": AUGMENTS,
    "colour_jitter": AUGMENTS,
    "dense": "which needs feature maps",
    "stream": "which does not name its images",
    "skip_corrupt": "because it needs every image",
}

# sections of `--help-all`, which together have every setting
SECTIONS: dict[str, tuple[str, ...]] = {
    "Tasks": (
        "shards",
        "leave_out",
        "tasks",
        "drop",
        "train_on",
        "joint",
        "temperature",
        "task_weights",
        "class_balanced",
        "stream",
        "skip_corrupt",
    ),
    "Network": (
        "backbone",
        "backbone_options",
        "weights",
        "weights_key",
        "size",
        "tune",
        "features",
        "batchnorm",
        "adapt_batches",
    ),
    "Optimization": (
        "iterations",
        "warmup",
        "warmup_lr",
        "lr",
        "tau",
        "momentum",
        "weight_decay",
        "optimizer",
        "schedule",
        "layer_decay",
        "ema",
        "label_smoothing",
        "dense",
        "loss_scale",
        "gradients",
        "seed",
    ),
    "Augmentation": ("rotations", "stain_jitter", "colour_jitter"),
    "Batches and devices": (
        "batch",
        "accumulate",
        "sync_batchnorm",
        "checkpointing",
        "compile",
        "graph",
        "device",
        "workers",
        "resident",
    ),
    "Checkpoints and logs": ("checkpoint_every", "validate_every", "log_every", "log_cosines"),
}
