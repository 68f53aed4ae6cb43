"""Our own names of networks, and how they map to those of torchvision and timm. This module does not load torch."""

from __future__ import annotations

LITE, LITE_IN_TIMM = "efficientnet_lite0", "tf_efficientnet_lite0"
TIMM = "timm:"
AUTHORS_DENSENET, TORCHVISION_DENSENET = "mtdp_densenet121", "densenet121"
REMARKS = {
    AUTHORS_DENSENET: "The DenseNet121 of the paper: its features are averages of the last normalization's output, "
    "without the ReLU that torchvision's densenet121 applies before it averages.",
    TORCHVISION_DENSENET: "The DenseNet121 of torchvision, which applies a ReLU to the last normalization's output "
    f"before it averages; the paper's network, {AUTHORS_DENSENET}, does not.",
}


def architecture(name: str) -> str:
    """Return the name of the network in torchvision or timm."""
    return LITE_IN_TIMM if name == LITE else name.removeprefix(TIMM)


def remark(name: str) -> str | None:
    """Return the explanation for a network whose name is ambiguous; None for others."""
    return REMARKS.get(name)
