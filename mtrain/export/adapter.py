"""Exports the low-rank updates of `--tune lora` as the PEFT package stores them, without the weights they are added to.

Format: https://huggingface.co/docs/peft/developer_guides/checkpoint (`adapter_config.json` and
`adapter_model.safetensors`, whose tensors are named base_model.model.<layer>.lora_A.weight and lora_B.weight).
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from mtrain.disk.atomic import write_json
from mtrain.errors import UsageError
from mtrain.export.formats import WrittenFiles, loading_of_head, name_for_loading, network_config
from mtrain.model.heads import Head
from mtrain.model.network import SharedNetwork
from mtrain.model.weight_files.tensor_file import read_tensors, write_tensors
from mtrain.model.weight_files.weights import StateDict
from mtrain.runs.belonging import check_part
from mtrain.runs.run_folder import Run

FORMAT = "adapter"
CONFIG = "adapter_config.json"
_TENSORS, _HEAD = "adapter_model.safetensors", "head.safetensors"


def to_adapter(run: Run, network: SharedNetwork, head: Head | None, out: Path) -> WrittenFiles:
    """Write the updates of `run`, and the head as `head.weight` and `head.bias` in a separate file.

    Raises:
        UsageError: the run has no updates, or began from random weights, which nobody else has; or PEFT would apply
            the updates wrongly.
        RunError: the run's file of updates is damaged.
    """
    config = run.config()
    if not config.tune.startswith("lora"):
        raise UsageError(
            "--to adapter exports low-rank updates",
            where=run.path,
            found=f"a run with --tune {config.tune}",
            expected="a run with --tune lora:R",
            remedy="use another format",
        )
    if config.weights == "random":
        raise UsageError(
            "--to adapter: the run began from random weights, which nobody else has",
            where=run.path,
            remedy="use another format",
        )
    if any(isinstance(layer, nn.MultiheadAttention) for layer in network.body.modules()):
        raise UsageError(  # seen with PEFT 0.21.2: MultiheadAttention.merge
            f"--to adapter: {network.name} has attention of torch, whose output layer PEFT updates twice",
            where=run.path,
            remedy=f"use another format, or {run.adapter.name} in the run: each weight grows by lora_B @ lora_A",
        )
    updates, stated = read_tensors(run.adapter)
    check_part(run.adapter, stated)
    about = {"backbone": network.name, **run.seen().json()}
    write_tensors(out / _TENSORS, {f"base_model.model.{name}.weight": value for name, value in updates.items()}, about)
    write_json(out / CONFIG, _peft_config(updates, network.name))
    write_json(out / "config.json", network_config(network, head, config.size))
    files: tuple[str, ...] = (_TENSORS, CONFIG, "config.json")
    if head:
        write_tensors(out / _HEAD, {"head.weight": head.weight, "head.bias": head.bias}, about)
        files = (*files, _HEAD)
    start = "imagenet" if config.weights == "imagenet" else "START"
    key = f', "{config.weights_key}"' if config.weights_key else ""
    loading = (
        "from mtrain import shared_network\n"
        "from peft import PeftModel\n"
        + ("# START: the file of the weights that the training began from\n" if start == "START" else "")
        + f'network = shared_network("{name_for_loading(network)}", "{start}"{key})\n'
        'network.body = PeftModel.from_pretrained(network.body, ".").merge_and_unload()\n'
        "network.eval()\n"
        "# network(network.normalize(images)): features of uint8 RGB images (N, 3, H, W)"
    )
    loading += loading_of_head(_HEAD) if head else ""
    return WrittenFiles(files, loading, "encoder = network")


def _peft_config(updates: StateDict, base: str) -> dict[str, object]:
    """The content of adapter_config.json. The scale alpha / r is 1, because lora_B includes the training's."""
    rank = next(value.shape[0] for name, value in updates.items() if name.endswith(".lora_A"))
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted({name.rpartition(".")[0] for name in updates}),
    }
