"""A combination of the values in a sweep's grid, and how it is written."""

from __future__ import annotations

from dataclasses import dataclass

from mtrain.config import FitConfig

NO_DECAY = 1.0  # of the learning rate from block to block
WHOLE = "all"  # every task that is not left out


@dataclass(frozen=True, order=True)
class Combination:
    """One combination of the values in the grid."""

    backbone: str
    lr: float
    tau: float
    warmup: bool
    tune: str = "all"
    layer_decay: float = NO_DECAY
    dense: bool = False
    gradients: str = "mean"
    pool: str = WHOLE

    @classmethod
    def of(cls, config: FitConfig) -> Combination:
        """Return the combination of a training, whose tasks the configuration may choose by themselves: WHOLE."""
        decay = config.layer_decay or NO_DECAY
        chosen = config.tune, decay, config.dense, config.gradients
        return cls(config.backbone, config.lr, config.tau, config.warmup > 0, *chosen)

    def __str__(self) -> str:
        warmup = "with" if self.warmup else "without"
        return f"{self.backbone} lr {rate(self.lr)} tau {self.tau:g} {warmup} warm-up {self.others}".rstrip()

    @property
    def others(self) -> str:
        """The values of the axes that are off by default, in words; empty if all are off."""
        tune = "" if self.tune == "all" else f"tune {self.tune}"
        decay = "" if self.layer_decay == NO_DECAY else f"layer decay {self.layer_decay:g}"
        gradients = "" if self.gradients == "mean" else f"gradients {self.gradients}"
        pool = "" if self.pool == WHOLE else f"pool {self.pool}"
        return " ".join(filter(None, (tune, decay, "dense" if self.dense else "", gradients, pool)))


def rate(value: float) -> str:
    """Format a rate: 0.0001 -> '1e-4', 0.0025 -> '2.5e-3'."""
    mantissa, exponent = f"{value:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
