"""What a run's training and transfers took, from its log and its results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from dpconvert.plural import counted
from dpconvert.runtime.progress import clock
from mtrain.config import FitConfig


def cost(
    config: FitConfig, events: Sequence[dict[str, Any]], results: Iterable[dict[str, Any]]
) -> list[tuple[str, str]]:
    """(name, value) of each fact that is known: time, speed, waiting, memory."""
    steps = [event for event in events if event["event"] == "step" and event.get("images_per_s")]
    return [*_training(config, steps), *_memory(steps), *_transfers(results)]


def seconds_of(config: FitConfig, steps: Sequence[dict[str, Any]]) -> float:
    """Time that the logged iterations took, s; pauses for validation and checkpoints not counted."""
    total, before = 0.0, 0
    for event in steps:
        total += (event["iteration"] - before) * config.batch / event["images_per_s"]
        before = event["iteration"]
    return total


def _training(config: FitConfig, steps: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    if not steps:
        return
    seconds = seconds_of(config, steps)
    yield f"training time, {'h:min:s' if seconds >= 3600 else 'min:s'}", clock(seconds)
    yield "images per second", f"{median(event['images_per_s'] for event in steps):.1f} (median)"
    waits = [event["wait"] for event in steps if isinstance(event.get("wait"), float)]
    if waits:
        yield "waiting for data", f"{100 * median(waits):.0f}% of the time (median)"


def _memory(steps: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for name, title in (("host", "host memory, peak"), ("device", "device memory, peak")):
        found = [event["memory"][name] for event in steps if name in event.get("memory", {})]
        if found:
            yield title, f"{max(found):,.0f} MiB"


def _transfers(results: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    seconds = [one["seconds"] for one in results if isinstance(one.get("seconds"), int | float)]
    if seconds:
        yield "transfers", f"{clock(sum(seconds))} in all ({counted(len(seconds), 'result')})"
