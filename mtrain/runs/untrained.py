"""A network that no run has trained, in the form of a run: to be scored as it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtrain.backbones import catalog
from mtrain.config import FitConfig
from mtrain.errors import UsageError
from mtrain.runs.run_folder import Run


@dataclass(frozen=True)
class Start(Run):
    """A network that no run has trained, to be scored as it is: `path` is where results of it lie; `given` says which
    network it is, from which weights, for images of which size.
    """

    given: FitConfig

    @property
    def name(self) -> str:
        return catalog.slug(self.given.backbone)

    def about(self) -> dict[str, Any]:
        """As that of a run that has trained on nothing."""
        card = catalog.described(self.given.backbone, self.given.backbone_options)
        return {"network": card.model_dump(mode="json")} if card else {}

    def config(self) -> FitConfig:
        return self.given

    def trained_on(self) -> dict[str, tuple[str, ...]]:
        return {}

    def check_finished(self) -> None:
        """Raises:
        UsageError: no run has trained it.
        """
        raise UsageError(f"{self.name} is not a run: nothing has trained it", remedy="name a run with --run")


def start_of(runs: Path, config: FitConfig) -> Start:
    """The network that `config` names; its results lie beside the runs."""
    card = catalog.described(config.backbone, config.backbone_options)
    known = json.dumps([config.backbone, config.size, card.determining() if card else None], sort_keys=True)
    digest = hashlib.sha256(known.encode()).hexdigest()[:8]
    return Start(runs / f".network-{catalog.slug(config.backbone)}-{digest}", config)
