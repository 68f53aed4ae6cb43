"""One writer per format: it writes a shared network, optionally with a head, and returns the code that loads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from safetensors.torch import save
from torch import Tensor, nn

from mtrain.backbones import catalog
from mtrain.backbones.card import BackboneCard
from mtrain.disk.atomic import replacing, write_json
from mtrain.errors import UsageError
from mtrain.export.onnx import write_onnx
from mtrain.model.backbones import AUXILIARY, WITHOUT_AUXILIARY, timm_options
from mtrain.model.heads import Head
from mtrain.model.network import SharedNetwork
from mtrain.model.network_names import AUTHORS_DENSENET, TORCHVISION_DENSENET, architecture
from mtrain.model.weight_files.tensor_file import write_tensors
from mtrain.model.weight_files.weights import StateDict
from mtrain.runs.seen import Seen


class WrittenFiles(NamedTuple):
    """Names of the written files, and Python code that loads them.

    encoder: code that follows, and assigns to `encoder` a module from normalized images to features; empty if there is
    none.
    """

    files: tuple[str, ...]
    loading: str
    encoder: str = ""


# torchvision's own forward method applies a ReLU before the average
_WITHOUT_RELU = (
    "\n# model(images) would apply a ReLU that this network does not have\n"
    "network = torch.nn.Sequential(model.features, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), "
)
Writer = Callable[[SharedNetwork, Head | None, Path, int, Seen], WrittenFiles]


def to_safetensors(network: SharedNetwork, head: Head | None, out: Path, size: int, seen: Seen) -> WrittenFiles:
    """The tensors under the network's own names, and the head as `head.weight` and `head.bias`."""
    state = dict(network.body.state_dict())
    if head:
        state |= {"head.weight": head.weight, "head.bias": head.bias}
    write_tensors(out / "model.safetensors", state, {"backbone": network.name, **seen.json()})
    write_json(out / "config.json", network_config(network, head, size))
    loading = (
        "from mtrain import shared_network\n"
        f'network = shared_network("{name_for_loading(network)}", "model.safetensors").eval()\n'
        "# network(network.normalize(images)): features of uint8 RGB images (N, 3, H, W)"
    )
    loading += loading_of_head("model.safetensors") if head else ""
    return WrittenFiles(("model.safetensors", "config.json"), loading, "encoder = network")


def loading_of_head(file: str) -> str:
    """Code that follows, and applies the tensors `head.weight` and `head.bias` of this file to the features."""
    return (
        "\n\nfrom safetensors.torch import load_file\n"
        f'head = load_file("{file}")\n'
        '# features @ head["head.weight"].T + head["head.bias"]: the outputs of the head'
    )


def to_torchvision(network: SharedNetwork, head: Head | None, out: Path, size: int, _seen: Seen) -> WrittenFiles:
    """A state dict for a torchvision model: of the body only, or with the head as its classifier."""
    name = TORCHVISION_DENSENET if network.name == AUTHORS_DENSENET else network.name
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise UsageError(f"torchvision has no {name}", remedy="use --to timm, safetensors or onnx")
    model = torchvision.models.get_model(name, **_options(name, head))
    state = _with_classifier(network.body.state_dict(), head, classifier_of(model))
    with replacing(out / "model.pth") as partial:
        torch.save(state, partial)
    options = "".join(f", {key}={value}" for key, value in _options(name, head).items())
    loading = (
        "import torch, torchvision\n"
        f'model = torchvision.models.get_model("{name}"{options})\n'
        'state = torch.load("model.pth", weights_only=True)\n'
        f"model.load_state_dict(state{'' if head else ', strict=False'})"
        + ("" if head else f"  # only {classifier_of(model)}.weight and .bias are missing")
        + f"\nmodel.eval()\n{_takes(network)}"
        + (_WITHOUT_RELU + ("model.classifier)" if head else ")") if network.name == AUTHORS_DENSENET else "")
    )
    encoder = f"model.{classifier_of(model)} = torch.nn.Identity()\nencoder = model.eval()"
    if network.name == AUTHORS_DENSENET:
        encoder = "encoder = network.eval()"
    return WrittenFiles(("model.pth",), loading, "" if head else encoder)


def to_timm(network: SharedNetwork, head: Head | None, out: Path, size: int, _seen: Seen) -> WrittenFiles:
    """A checkpoint for timm: of the body only (`num_classes=0`), or with the head as its classifier."""
    if network.card is not None:
        return _card_to_timm(network, network.card, head, out, size)
    name = architecture(network.name)
    try:
        import timm
    except ModuleNotFoundError:
        raise UsageError("--to timm needs the timm package", remedy="pip install 'dpconvert[timm]'") from None
    if network.name == AUTHORS_DENSENET:
        raise UsageError(
            f"timm's densenet121 applies a ReLU to the features, {AUTHORS_DENSENET} does not",
            remedy="use --to torchvision, safetensors or onnx",
        )
    if not timm.is_model(name):
        raise UsageError(f"timm has no {network.name}", remedy="use --to torchvision, safetensors or onnx")
    classes = len(head.about.classes) if head else 0
    model: Any = timm.create_model(name, num_classes=classes)
    defaults: dict[str, Any] = model.default_cfg
    sized = timm_options(name) if size != defaults["input_size"][-1] else {}
    classifier_names = defaults["classifier"] or ()
    classifiers = [classifier_names] if isinstance(classifier_names, str) else list(classifier_names)
    state = dict(network.body.state_dict())
    for classifier in classifiers:  # a distilled network has two, whose outputs are averaged
        state = _with_classifier(state, head, classifier)
    if _shapes(state) != _shapes(model.state_dict()):
        raise UsageError(
            f"timm's {name} has other layers", where=network.name, remedy="use --to torchvision, safetensors or onnx"
        )
    with replacing(out / "model.safetensors") as partial:
        partial.write_bytes(save({key: value.contiguous() for key, value in state.items()}, {"format": "pt"}))
    options = "".join(f", {key}={value}" for key, value in sized.items())
    write_json(out / "config.json", _timm_config(network, name, head, size, defaults, sized))
    loading = (
        "import timm\n"
        f'model = timm.create_model("{name}", num_classes={classes}{options}, checkpoint_path="model.safetensors")\n'
        f"model.eval()\n{_takes(network)}\n"
        "# or, from a folder or the hub: timm.create_model('local-dir:FOLDER', pretrained=True)"
    )
    return WrittenFiles(("model.safetensors", "config.json"), loading, "" if head else "encoder = model.eval()")


def _timm_config(
    network: SharedNetwork, name: str, head: Head | None, size: int, defaults: dict[str, Any], sized: dict[str, Any]
) -> dict[str, Any]:
    """The configuration with which timm opens a folder. defaults: timm's own of this network. sized: options of another
    input size.
    """
    classes = len(head.about.classes) if head else 0
    expected = {"mean": _rounded(network.mean), "std": _rounded(network.std), "input_size": [3, size, size]}
    expected |= {"interpolation": network.interpolation, "crop_pct": 1.0, "num_classes": classes}
    expected |= {key: defaults[key] for key in ("classifier", "first_conv")}
    config = {"architecture": name, "num_classes": classes, "num_features": network.num_features}
    config |= {"label_names": list(head.about.classes)} if head else {}
    # timm takes the size of the position embedding from its own table, but not where it reads a folder's configuration
    native = {"img_size": defaults["input_size"][-1]} if defaults.get("fixed_input_size") else {}
    config |= {"model_args": native | sized} if native | sized else {}
    return config | {"pretrained_cfg": expected}


def _card_to_timm(network: SharedNetwork, card: BackboneCard, head: Head | None, out: Path, size: int) -> WrittenFiles:
    """A network that a table describes: its features are what the lines that load it make of timm's tokens."""
    if head:
        raise UsageError(
            f"timm gives no classifier the features of {card.name}: {card.features}",
            remedy="use --to safetensors or onnx",
        )
    with replacing(out / "model.safetensors") as partial:
        state = {key: value.contiguous() for key, value in network.body.state_dict().items()}
        partial.write_bytes(save(state, {"format": "pt"}))
    expected = {"mean": _rounded(network.mean), "std": _rounded(network.std), "input_size": [3, size, size]}
    expected |= {"interpolation": network.interpolation, "crop_pct": 1.0, "num_classes": 0}
    options = _options_of_card(network, card, size)
    config = {"architecture": card.timm, "num_classes": 0, "num_features": network.num_features, "model_args": options}
    write_json(out / "config.json", config | {"pretrained_cfg": expected, "network": _table(card)})
    given = "".join(f", {key}={_in_python(key, value)}" for key, value in options.items())
    loading = (
        "import timm, torch\n"
        f'model = timm.create_model("{card.timm}", num_classes=0{given}, checkpoint_path="model.safetensors").eval()\n'
        f"{_epsilon(card)}{_RULES[card.features]}"
    )
    return WrittenFiles(("model.safetensors", "config.json"), loading, _encoder(card))


def _options_of_card(network: SharedNetwork, card: BackboneCard, size: int) -> dict[str, Any]:
    """The arguments of timm's constructor with which the network takes images of this size."""
    options = card.options | ({} if card.features == "pooled" else {"global_pool": ""})
    defaults: Any = network.body.pretrained_cfg
    native = card.options.get("img_size", defaults["input_size"][-1])
    if defaults.get("fixed_input_size"):  # else timm would take the size of a folder's configuration
        options = {"img_size": native} | options
    dynamic = size != native and getattr(network.body, "dynamic_img_size", False)
    return options | ({"dynamic_img_size": True} if dynamic else {})


def _epsilon(card: BackboneCard) -> str:
    """Lines that set what timm's constructor takes no number for."""
    if card.norm_eps is None:
        return ""
    return (
        "for module in model.modules():\n"
        "    if isinstance(module, torch.nn.LayerNorm):\n"
        f"        module.eps = {card.norm_eps!r}  # as in the training\n"
    )


_TOKENS = "tokens = model(images)  # normalized with the mean and std of config.json\n"
_MEAN = "tokens[:, model.num_prefix_tokens :].mean(1)"
_RULES = {
    "pooled": "features = model(images)  # normalized with the mean and std of config.json",
    "cls": f"{_TOKENS}features = tokens[:, 0]",
    "mean": f"{_TOKENS}features = {_MEAN}",
    "cls+mean": f"{_TOKENS}features = torch.cat([tokens[:, 0], {_MEAN}], dim=1)",
}


def _encoder(card: BackboneCard) -> str:
    if card.features == "pooled":
        return "encoder = model"
    rule = _RULES[card.features].removeprefix(_TOKENS).removeprefix("features = ").replace("model.", "self.model.")
    return (
        "class Features(torch.nn.Module):\n"
        "    def __init__(self, model):\n"
        "        super().__init__()\n"
        "        self.model = model\n\n"
        "    def forward(self, images):\n"
        "        tokens = self.model(images)\n"
        f"        return {rule}\n\n\n"
        "encoder = Features(model).eval()"
    )


def _in_python(key: str, value: object) -> str:
    return f"timm.layers.{value}" if key == "mlp_layer" else repr(value)


def to_onnx(network: SharedNetwork, head: Head | None, out: Path, size: int, _seen: Seen) -> WrittenFiles:
    """A graph from uint8 images, which it normalizes itself, to `features`, and with a head also to `logits`."""
    write_onnx(network, head.module() if head else None, out / "model.onnx", size)
    write_json(out / "config.json", network_config(network, head, size))
    loading = (
        "import onnxruntime\n"
        'session = onnxruntime.InferenceSession("model.onnx")\n'
        f"answers = session.run(None, {{'images': images}})  # uint8 (N, 3, {size}, {size}), RGB"
    )
    return WrittenFiles(("model.onnx", "config.json"), loading)


WRITERS: dict[str, Writer] = {
    "safetensors": to_safetensors,
    "torchvision": to_torchvision,
    "timm": to_timm,
    "onnx": to_onnx,
}


def classifier_of(model: nn.Module) -> str:
    """The name of a network's last linear layer, which `remove_classifier` removes."""
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return names[-1]


def _with_classifier(body: StateDict, head: Head | None, name: str) -> StateDict:
    return dict(body) | ({f"{name}.weight": head.weight.clone(), f"{name}.bias": head.bias.clone()} if head else {})


def _shapes(state: StateDict) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


def _options(name: str, head: Head | None) -> dict[str, Any]:
    """Arguments of the torchvision constructor."""
    auxiliary = {**WITHOUT_AUXILIARY, "init_weights": False} if name in AUXILIARY else {}
    return auxiliary | ({"num_classes": len(head.about.classes)} if head else {})


def network_config(network: SharedNetwork, head: Head | None, size: int) -> dict[str, Any]:
    """The content of config.json, which is needed to use the weights."""
    config: dict[str, Any] = {
        "backbone": network.name,
        "num_features": network.num_features,
        "size": size,
        "mean": _rounded(network.mean),
        "std": _rounded(network.std),
    }
    if network.card is not None:
        config |= {"network": _table(network.card)}
    return config | ({"task": head.about.task, "classes": list(head.about.classes)} if head else {})


def _table(card: BackboneCard) -> dict[str, Any]:
    """The table by which `--backbone FOLDER` builds the network of an export, without the files of its start."""
    return card.model_copy(update={"files": (), "sha256": {}}).model_dump(mode="json")


def name_for_loading(network: SharedNetwork) -> str:
    """What `shared_network` calls the network; a folder with a config.json says itself which network it holds."""
    return network.name if network.card is None or network.name in catalog.known() else "./"


def _takes(network: SharedNetwork) -> str:
    """A comment that says how to normalize images."""
    mean, std = (", ".join(f"{value:.6g}" for value in values.flatten()) for values in (network.mean, network.std))
    return f"# takes RGB images in 0..1, minus [{mean}], divided by [{std}]"


def _rounded(values: Tensor) -> list[float]:
    numbers: list[float] = values.flatten().tolist()
    return [round(number, 8) for number in numbers]
