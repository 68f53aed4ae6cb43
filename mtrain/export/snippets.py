"""Code for a model card that gives an exported network to other tools of the field, as each of them documents it.

TRIDENT: trident.patch_encoder_models.CustomInferenceEncoder(enc_name, model, transforms, precision), of its tutorial on
one's own foundation model. eva 0.4.5: eva.core.models.wrappers.ModelFromFunction(path). THUNDER 0.2.2: a subclass of
thunder.models.pretrained_models.PretrainedModel with `name`, `emb_dim` and `vlm` (whether it knows text). LazySlide
0.13.0: lazyslide.tl.feature_extraction(wsi, model, model_name=, transform=), where `model` is any callable.
"""

from __future__ import annotations

from collections.abc import Iterator

from mtrain.model.network import SharedNetwork

TOOLS = ("TRIDENT", "eva", "THUNDER", "LazySlide")


def preamble(network: SharedNetwork, size: int, encoder: str) -> str:
    """Return code that defines `encoder`, from normalized images (N, 3, size, size) to features (N, num_features), and
    `transform`, from a PIL image to a normalized image.

    encoder: code that follows what loads the network, and assigns `encoder`.
    """
    mean, std = (
        ", ".join(f"{value:.8g}" for value in values.flatten().tolist()) for values in (network.mean, network.std)
    )
    return f"""{encoder}

import torch
from torchvision.transforms import v2

transform = v2.Compose([
    v2.ToImage(),
    v2.Resize({size}, v2.InterpolationMode.{network.interpolation.upper()}, antialias=True),
    v2.CenterCrop({size}),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize([{mean}], [{std}]),
])"""


def snippets(name: str, features: int) -> dict[str, str]:
    """Return, for each of `TOOLS`, code that follows the preamble and assigns what the tool takes.

    name: what the tool calls the network. features: numbers per image.
    """
    return {
        "TRIDENT": f'''from trident.patch_encoder_models import CustomInferenceEncoder

patch_encoder = CustomInferenceEncoder("{name}", encoder, transform, torch.float32)
# slide.extract_patch_features(patch_encoder, coords_path=..., save_features=...)''',
        "eva": """from eva.core.models.wrappers import ModelFromFunction


def load_encoder() -> torch.nn.Module:
    return encoder


model = ModelFromFunction(path=load_encoder)
# in a configuration: class_path eva.core.models.wrappers.ModelFromFunction, path FILE.load_encoder, and `transform`
# as the transform of the data""",
        "THUNDER": f'''from thunder.models.pretrained_models import PretrainedModel


class Encoder(PretrainedModel):
    def __init__(self):
        super().__init__()
        self.name, self.emb_dim, self.vlm, self.encoder = "{name}", {features}, False, encoder

    def get_transform(self):
        return transform

    def get_linear_probing_embeddings(self, x):
        return self.encoder(x)

    def get_segmentation_embeddings(self, x):
        raise NotImplementedError("this network gives one vector per image")


model = Encoder()
# thunder.benchmark(model, dataset="break_his", task="linear_probing")''',
        "LazySlide": f'''import lazyslide


def extract(wsi):
    lazyslide.tl.feature_extraction(wsi, encoder, model_name="{name}", transform=transform)


# extract(wsi) after lazyslide.pp.find_tissues(wsi) and lazyslide.pp.tile_tissues(wsi, tile_px, mpp=mpp)''',
    }


def section(name: str, network: SharedNetwork, size: int, encoder: str) -> Iterator[str]:
    """Yield the lines of a card's section; none if `encoder` is empty."""
    if not encoder:
        return
    yield from ("", "## Use it in other tools", "")
    yield "After the code above, `encoder` maps normalized images to features, and `transform` prepares an image:"
    yield from ("", "```python", preamble(network, size, encoder), "```")
    for tool, code in snippets(name, network.num_features).items():
        yield from ("", f"{tool}:", "", "```python", code, "```")
