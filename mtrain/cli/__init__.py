"""The command `mtrain`, one module for each group of commands. Only this package exits the program.

Commands import torch when they run, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys

import click

from dpconvert import __version__
from dpconvert.runtime.program import Program
from dpconvert.runtime.terminal import ended, say
from mtrain.cli import (
    backbones,
    compare,
    doctor,
    evaluate,
    influence,
    labels,
    results,
    robustness,
    scores,
    soup,
    sweep,
    train,
    watch,
)
from mtrain.cli.unused_options import noting_unused
from mtrain.disk.documents import unchecked
from mtrain.disk.remembered import remembered
from mtrain.errors import SaidElsewhereError, UsageError

TRAINING = {
    "torch",
    "torchvision",
    "safetensors",
    "sklearn",
    "tensorboard",
    "webdataset",
    "matplotlib",
    "jinja2",
    "fsspec",
}

# NVIDIA's containers set it: torch then rounds all products of float32 on a GPU to TF32, whatever a program asks for
TF32 = "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"


def main() -> None:
    """Entry point."""
    os.environ.pop(TF32, None)
    with ended("mtrain", "stopped"):
        try:
            try:
                group.main(standalone_mode=False)
            finally:
                for text in (*unchecked(), *remembered()):
                    say(f"mtrain: note: {text}")
        except SaidElsewhereError:
            sys.exit(1)
        except RuntimeError as error:
            raise _of_a_device(error) from None
        except ModuleNotFoundError as error:
            if error.name not in TRAINING:
                raise
            raise UsageError(f"{error.name} is not installed", remedy="pip install 'dpconvert[train]'") from None


def _of_a_device(error: RuntimeError) -> Exception:
    """What a failure of torch or of a GPU is for the user; the error itself if it is none."""
    if "torch" not in sys.modules:
        return error
    from mtrain.model.devices import device_failure

    return device_failure(error) or error


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="mtrain")
def group() -> None:
    """Pre-train one network on many tasks at once, and score how it transfers to tasks that were left out.

    \b
    mtrain fit --shards shards/ --leave-out Lung     train on all tasks but Lung
    mtrain transfer --mode svm                       score Lung with the newest run
    mtrain transfer --mode svm --weights imagenet    score Lung with the ImageNet weights
    mtrain report                                    write a page with all results
    """


for command in (
    train.fit,
    watch.watch,
    train.release,
    train.list_runs,
    scores.transfer,
    scores.features,
    evaluate.evaluate,
    evaluate.breakhis,
    labels.audit_labels,
    compare.compare,
    robustness.robustness,
    influence.influence,
    sweep.sweep,
    sweep.select,
    soup.soup,
    results.report,
    results.export,
    results.predict,
    backbones.backbones,
    doctor.doctor,
):
    group.add_command(noting_unused(command))
