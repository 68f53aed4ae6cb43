"""What `import dpconvert` offers to a notebook or a program: what the commands do, as functions."""

from __future__ import annotations

import os
from pathlib import Path

from dpconvert import card, conversion
from dpconvert.arguments import check_options, check_whole, named, of_model
from dpconvert.card import TaskCard
from dpconvert.manifest.catalog import find
from dpconvert.manifest.roots import root_of
from dpconvert.plan.options import Options
from dpconvert.readers import with_defaults
from dpconvert.runtime.limits import Limits
from dpconvert.runtime.processes import processors
from dpconvert.runtime.progress import Reporter

Folder = str | os.PathLike[str]
ARGUMENTS = of_model(Options) | {
    "source": "files",
    "out": "out",
    "workers": "workers",
    "overwrite": "overwrite=True",
    "retry-failed": "retry_failed=True",
    "limit-memory": "limit_memory",
    "limit-seconds": "limit_seconds",
}


@named(ARGUMENTS)
def convert(
    source: Folder,
    files: Folder | None = None,
    out: Folder = "shards",
    options: Options | None = None,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    retry_failed: bool = False,
    limit_memory: int | None = None,
    limit_seconds: int | None = None,
    quiet: bool = True,
) -> TaskCard:
    """Convert one source into WebDataset shards, as `dpconvert SOURCE --source FILES --out OUT` does.

    An interrupted conversion is resumed, a finished one is returned at once.

    Args:
        source: Name of a known source (`camelyon16`), or the path of a manifest of your own (`my.toml`).
        files: Folder of the source's files. Default: where the command looks for them.
        out: Folder in which the task gets a folder of its own.
        options: Split policy, image format, resolution and whatever else decides the bytes of the shards.
        workers: Number of processes. Default: one for each processor.
        overwrite: Replace another conversion of this task.
        retry_failed: Only make again what was left out because it could not be read.
        limit_memory: Maximum memory for reading one file, in GiB; 0 for no limit. Default: 6. Linux only.
        limit_seconds: Maximum processor time for reading one file, in worker processes; 0 for no limit. Default: 1800.
            With one worker, files are read in this process without a limit on time, unless it is given here.
        quiet: Show no progress.

    Returns:
        The content of `task.json`. With `Options(skip_failed=True)`, `failures` lists the samples that could not be
        read.

    Raises:
        UsageError: There is no such source, an option does not fit it, or an argument has no such value.
        ManifestError: The manifest is not valid.
        SourceError: The files are not those that the manifest describes.
        ReadError: A file cannot be read.
        OutputError: Another process works in the folder, it holds another conversion, or it cannot be written.
    """
    options = Options() if options is None else options
    check_options(options, Options)
    workers = processors() if workers is None else workers
    check_whole("workers", workers, 1)
    check_whole("limit_memory", limit_memory or 0, 0)
    check_whole("limit_seconds", limit_seconds or 0, 0)
    manifest = with_defaults(find(os.fspath(source)))
    root = root_of(manifest, None if files is None else Path(files))
    outcome = conversion.convert(
        manifest,
        root,
        Path(out),
        options,
        workers=workers,
        overwrite=overwrite,
        report=Reporter(quiet=quiet),
        retry_failed=retry_failed,
        limits=Limits.of_options(limit_memory, limit_seconds),
    )
    return outcome.card


@named(ARGUMENTS)
def load_task(folder: Folder) -> TaskCard:
    """Read the card (`task.json`) of a finished task: classes, splits, counts, licence, digests.

    Args:
        folder: The task's folder, such as `shards/Camelyon16`.

    Raises:
        ShardError: The task is unfinished, or its card is damaged or of a newer version.
    """
    return card.load(Path(folder))
