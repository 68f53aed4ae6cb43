"""A folder that timm or transformers wrote (config.json beside the weights) in, the table of its network out.

`mtrain export --to safetensors`: the table itself, as `network`. timm: `architecture`, `model_args` and
`pretrained_cfg`, as timm.models.push_to_hf_hub writes them. transformers: the configurations of Dinov2Model,
Dinov2WithRegistersModel and ViTModel, and their preprocessor_config.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtrain.backbones.card import BackboneCard, Triple
from mtrain.errors import UsageError

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
ROUNDING = 1e-3  # by which rescale_factor, often written with few digits, may differ from 1 / 255
BICUBIC = ("bicubic", 3)  # as timm and as PIL call it
# what the image processors of transformers take where their file does not say
HALVES = {"image_mean": 0.5, "image_std": 0.5}
OF_CLIP = {"image_mean": (0.48145466, 0.4578275, 0.40821073), "image_std": (0.26862954, 0.26130258, 0.27577711)}
UNSTATED: dict[str, dict[str, Any]] = {
    "ViT": {**HALVES, "resample": 2, "do_center_crop": False},
    "Bit": {**OF_CLIP, "resample": 3},
    "CLIP": {**OF_CLIP, "resample": 3},
    "DeiT": {**HALVES, "resample": 3},
}
EXPECTED = "a config.json of timm, or of transformers for dinov2, dinov2_with_registers or vit"


def card_of_folder(folder: Path) -> BackboneCard:
    """The network in a folder, whose weights lie there too.

    Raises:
        UsageError: no such configuration, or one of a network that is not known.
    """
    content = _json(folder / CONFIG)
    try:
        if "network" in content:  # of `mtrain export`
            return BackboneCard.model_validate(content["network"])
        if "architecture" in content:
            return _of_timm(folder, content)
        if content.get("model_type") in ("dinov2", "dinov2_with_registers", "vit"):
            return _of_transformers(folder, content)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"not the configuration of a network: {error}", where=folder / CONFIG) from None
    raise UsageError("no network that is known", where=folder / CONFIG, expected=EXPECTED)


def _of_timm(folder: Path, content: dict[str, Any]) -> BackboneCard:
    config = content.get("pretrained_cfg", content)  # older versions of timm wrote one table
    pooling = {"global_pool": content["global_pool"]} if content.get("global_pool") else {}
    options = pooling | content.get("model_args", {})
    options.pop("num_classes", None)  # networks are built without their classifier
    if options.get("global_pool") == "":
        raise UsageError(
            "this network gives all its tokens (global_pool is empty), and which of them are features is not stated",
            where=folder / CONFIG,
            remedy="give the name that `mtrain backbones` lists it by, with --weights and the folder; "
            "or write a table that states features",
        )
    size = config.get("input_size")
    return BackboneCard(
        name=folder.resolve().name,
        title=content["architecture"],
        timm=content["architecture"],
        options=options,
        mean=config.get("mean"),
        std=config.get("std"),
        interpolation="bicubic" if config.get("interpolation") in BICUBIC else "bilinear",
        size=size[-1] if size else None,
    )


def _of_transformers(folder: Path, content: dict[str, Any]) -> BackboneCard:
    described = (folder / PREPROCESSOR).is_file()
    vit = content["model_type"] == "vit"
    processor = _processor(folder / PREPROCESSOR, "ViT" if vit else "Bit") if described else {}
    width, registers = content.get("hidden_size", 768), content.get("num_register_tokens", 0)
    gated = bool(content.get("use_swiglu_ffn"))
    size = content.get("image_size", 224)
    if content.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"hidden_act {content['hidden_act']!r} instead of 'gelu'")
    options = {
        "img_size": size,
        "patch_size": content.get("patch_size", 16),
        "embed_dim": width,
        "depth": content.get("num_hidden_layers", 12),
        "num_heads": content.get("num_attention_heads", 12),
        "mlp_ratio": (_mlp_width(content, width, gated, vit) + 0.5) / width,  # timm rounds the product down
        "qkv_bias": content.get("qkv_bias", True),
    }
    options |= {} if vit else {"init_values": content.get("layerscale_value", 1.0)}
    options |= {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"} if gated else {}
    options |= {"reg_tokens": registers, "no_embed_class": True} if registers else {}
    mean, std = _pixels(processor)
    return BackboneCard(
        name=folder.resolve().name,
        title=f"{content['model_type']} of transformers",
        timm="vit_base_patch16_224",
        options=options,
        features="cls",
        mean=mean,
        std=std,
        interpolation="bicubic" if processor.get("resample") in BICUBIC else "bilinear",
        size=_side(processor) or size,
        patch=options["patch_size"],
        norm_eps=content.get("layer_norm_eps", 1e-12 if vit else 1e-6),
        names=("transformers-vit",) if vit else ("transformers-dinov2",),
        note="" if described else f"the folder has no {PREPROCESSOR}: images are normalized as those of ImageNet",
    )


def _processor(path: Path, usual: str) -> dict[str, Any]:
    """The image processor in a file, with what it takes where the file does not say. usual: that of the network."""
    stated = {name: value for name, value in _json(path).items() if value is not None}
    kind = str(stated.get("image_processor_type") or stated.get("feature_extractor_type") or usual)
    others: dict[str, Any] = next((taken for start, taken in UNSTATED.items() if kind.startswith(start)), {})
    found = others | stated
    if missing := [name for name in OF_CLIP if name not in found and found.get("do_normalize", True)]:
        raise UsageError(f"no {missing[0]}, and {kind} is not known", where=path, remedy=f"state {missing[0]}")
    return found


def _pixels(processor: dict[str, Any]) -> tuple[Triple, Triple]:
    """Mean and standard deviation of pixels from 0 to 1. transformers multiplies those from 0 to 255 by a factor of its
    own, or by none, before it normalizes them, if it does.
    """
    usual = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
    mean, std = (other if processor.get(name) is None else processor[name] for name, other in usual.items())
    if not processor.get("do_normalize", True):
        mean, std = 0.0, 1.0
    factor = float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 1.0
    white = factor * 255 if abs(factor * 255 - 1) > ROUNDING else 1.0
    return _each(mean, white), _each(std, white)


def _each(values: Any, white: float) -> Triple:
    """One number for each channel, of which transformers also states a single one, divided by the value of white."""
    first, second, third = values if isinstance(values, list | tuple) else [values] * 3
    return float(first) / white, float(second) / white, float(third) / white


def _side(processor: dict[str, Any]) -> int | None:
    """The side of the images that the processor gives to the network; None if it does not say."""
    crop = processor.get("crop_size") if processor.get("do_center_crop", True) else None
    stated = crop or (processor.get("size") if processor.get("do_resize", True) else None)
    if isinstance(stated, dict):
        return stated.get("height") or stated.get("shortest_edge")
    return stated


def _mlp_width(content: dict[str, Any], width: int, gated: bool, vit: bool) -> int:
    """As transformers computes it; a gated layer takes both halves at once."""
    if vit:
        return int(content.get("intermediate_size", 3072))
    hidden = int(width * content.get("mlp_ratio", 4))
    return 2 * ((int(hidden * 2 / 3) + 7) // 8 * 8) if gated else hidden


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=path, expected=EXPECTED) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {error}", where=path) from None
    if not isinstance(content, dict):
        raise UsageError("not an object of JSON", where=path, expected=EXPECTED)
    return content
