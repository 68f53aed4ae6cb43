"""Our programs with settings that keep trainings short where a command line itself says nothing; without downloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dpconvert.cli import group as dpconvert
from mtrain.cli import group as mtrain
from mtrain.model import backbones
from mtrain.report import figures
from mtrain.train import footprint

drawn_as_png = figures.png
PROGRAMS = {"dpconvert": dpconvert, "mtrain": mtrain}
SOURCES = ("camelyon16", "lung", "umcm-colorectal")
TRAINING = {"iterations": 2, "warmup": 1, "batch": 4, "size": 64, "workers": 0, "device": "cpu"}
SMALL: dict[str, dict[str, dict[str, Any]]] = {
    "dpconvert": {name: {"workers": 1} for name in (*SOURCES, "tumour.toml", "verify", "audit")},
    "mtrain": {
        "fit": TRAINING | {"backbone": "shufflenet_v2_x0_5", "adapt_batches": 1, "validate_every": 0},
        "release": TRAINING,
        "evaluate": {"epochs": 1, "rates": (1e-3,), "seeds": 1, "workers": 0},
        **{name: {"workers": 0} for name in ("transfer", "features", "influence", "audit-labels")},
        "predict": {"device": "cpu"},
    },
}


def call(program: str, arguments: list[str]) -> int:
    """One of our programs in this process; its exit status."""
    try:
        found = PROGRAMS[program].main(arguments, standalone_mode=False, default_map=SMALL[program])
    except SystemExit as stop:
        found = stop.code
    return int(found or 0)


def without_downloads(put: Callable[[object, str, object], None]) -> None:
    """Random weights for those of ImageNet that a host elsewhere has; `put` is setattr, or a monkeypatch's."""
    for name in ("_torchvision_body", "_timm_body"):
        body = getattr(backbones, name)
        put(backbones, name, lambda backbone, _pretrained, body=body: body(backbone, False))


def without_estimates(put: Callable[[object, str, object], None]) -> None:
    """The same memory for every training: an estimate takes longer than a training of few iterations."""
    put(footprint, "footprint", lambda *_given: footprint.Footprint(1, 2, 3, 4))


def draw_figures_once() -> None:
    """As SVG. Drawing each as PNG too takes as long; tests/mtrain/test_figures.py draws one."""
    figures.png = lambda _figure: b"\x89PNG, not drawn"
