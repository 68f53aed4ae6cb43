"""Finds the runs of a folder by their names, and names for new ones."""

from __future__ import annotations

from pathlib import Path

from mtrain.backbones import catalog
from mtrain.config import FitConfig
from mtrain.errors import RunError, UsageError
from mtrain.runs.run_folder import NO_RUNS, Run


def open_run(runs: Path, name: str) -> Run:
    """The run of that name, or at that path.

    Raises:
        RunError: there is none; the message lists the existing runs.
    """
    for run in (Run(runs / name), Run(Path(name))):
        if run.exists:
            return run
    existing = ", ".join(run.name for run in all_runs(runs))
    remedy = f"existing runs: {existing}" if existing else NO_RUNS
    raise RunError(f"no run named {name!r}", where=runs, remedy=remedy)


def newest_run(runs: Path, *, to_score: bool = False) -> Run:
    """The run that was started or resumed last.

    to_score: pass over releases, which saw the test sets that scores are for, if there is another run.

    Raises:
        RunError: there is none.
    """
    existing = all_runs(runs)
    if not existing:
        raise RunError("no run in this folder", where=runs, remedy=NO_RUNS)
    others = (run for run in reversed(existing) if not _is_release(run))
    return next(others, existing[-1]) if to_score else existing[-1]


def _is_release(run: Run) -> bool:
    """Whether a run was trained on test sets; a damaged one is reported when it is used."""
    try:
        return any("test" in sets for sets in run.trained_on().values())
    except RunError:
        return False


def all_runs(runs: Path) -> list[Run]:
    """All runs, in the order in which they were started or last resumed."""
    folders = [path.parent for path in runs.glob("*/config.json")]
    return [Run(path) for path in sorted(folders, key=lambda p: ((p / "config.json").stat().st_mtime_ns, p.name))]


def named_run(runs: Path, name: str) -> Run:
    """The run of that name, whether it exists or not.

    Raises:
        UsageError: the name is not that of a folder.
    """
    if name != Path(name).name or name.startswith("."):
        raise UsageError(f"invalid run name {name!r}", remedy="give a plain name, and its folder with --runs")
    return Run(runs / name)


def new_name(runs: Path, config: FitConfig) -> str:
    """An unused, readable name, <backbone>-without-<tasks>-001. Its folder is made: no other process takes it."""
    left = ("without", *config.leave_out) if config.leave_out else ()
    stem = "-".join((catalog.slug(config.backbone), *left))
    number = 1
    while not _reserved(runs / f"{stem}-{number:03}"):
        number += 1
    return f"{stem}-{number:03}"


def _reserved(folder: Path) -> bool:
    """Whether the folder was made just now; also where it cannot be made, which is reported when it is written to."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError:
        pass
    return True
