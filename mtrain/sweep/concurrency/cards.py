"""The GPUs that a sweep uses on this machine, and a lock on each, so that two sweeps there know of each other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from dpconvert.runtime import locks
from dpconvert.runtime.processes import processors
from mtrain.versions import versions

QUERY = ("index", "uuid", "name", "memory.total", "memory.used", "utilization.gpu")
BUSY = 2048.0, 10.0  # MiB and percent that other programs use, from which a measurement beside them is not kept
SECONDS = 20.0  # after which nvidia-smi is not waited for


@dataclass(frozen=True)
class Card:
    """A GPU by its number or identifier in CUDA_VISIBLE_DEVICES, and what nvidia-smi reports about it.

    total, used: memory in MiB. load: percent of the time in which it computes.
    """

    name: str
    uuid: str = ""
    model: str = ""
    total: float = 0.0
    used: float = 0.0
    load: float = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether other programs use it, before this one does."""
        return self.used > BUSY[0] or self.load > BUSY[1]


@dataclass(frozen=True)
class Cards:
    """The GPUs of a sweep. assigned: whether each process is given one of them; else the cells name their device."""

    cards: tuple[Card, ...] = ()
    assigned: bool = True

    def variables(self, number: int) -> dict[str, str]:
        """Return the environment variables that give a process its GPU."""
        if not self.cards or not self.assigned:
            return {}
        return {"CUDA_VISIBLE_DEVICES": self.cards[number % len(self.cards)].name}

    def machine(self) -> dict[str, Any]:
        """Return what the speed of cells depends on here."""
        models = sorted(f"{card.model} {card.total:.0f} MiB" for card in self.cards if card.model)
        named = {} if models else {"host": os.uname().nodename}
        return {"gpus": models or len(self.cards), "processors": processors(), "torch": versions()["torch"], **named}


def cards_for(devices: Iterable[str], visible: Iterable[str]) -> Cards:
    """Return the GPUs for cells on these devices. visible: the GPUs here, by their names in CUDA_VISIBLE_DEVICES.

    With "cuda:1", processes see all GPUs, as the number would be wrong if each saw one.
    """
    names, wanted = list(visible), set(devices)
    if not names or wanted == {"cpu"}:
        return Cards()
    numbers = {int(device.partition(":")[2]) for device in wanted if device.startswith("cuda:")}
    if not numbers:
        return Cards(tuple(map(_card, names)))
    numbers |= {0} if wanted & {"auto", "cuda"} else set()
    return Cards(tuple(_card(names[number]) for number in sorted(numbers) if number < len(names)), assigned=False)


@contextmanager
def in_use(cards: Cards) -> Iterator[list[str]]:
    """Mark the GPUs as used by this sweep for the block. Yields a line for each that another sweep uses already."""
    taken: list[str] = []
    with ExitStack() as stack:
        for card in cards.cards:
            if not card.uuid:  # a bare number may be that of different GPUs in different jobs of a cluster
                continue
            path = Path(tempfile.gettempdir()) / f"mtrain-sweep-{os.getuid()}-{card.uuid}.lock"
            try:
                stack.enter_context(locks.held(path))
            except locks.TakenError as error:
                taken.append(f"GPU {card.name} is used by another sweep ({error.holder or 'unknown process'})")
            except OSError:  # without such a file, sweeps do not know of each other
                continue
        yield taken


@contextmanager
def environment(changed: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started within the block, and block Ctrl-C in them.

    Ctrl-C at a terminal goes to all processes, and one that is still loading its modules would show a traceback.
    """
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    resource_tracker.ensure_running()  # else the first process starts it, and unblocks signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _card(name: str) -> Card:
    """Return what nvidia-smi reports about the GPU with this name; only the name if it reports nothing."""
    for fields in _listed():
        if len(fields) == len(QUERY) and (name == fields[0] or fields[1].startswith(name)):
            try:
                return Card(name, fields[1], fields[2], *map(float, fields[3:]))
            except ValueError:  # [N/A], as on a GPU that shares the memory of the machine
                return Card(name, fields[1], fields[2])
    return Card(name)


def _listed() -> list[list[str]]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [[field.strip() for field in line.split(",")] for line in found.stdout.splitlines()]
