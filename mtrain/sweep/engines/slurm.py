"""Write a SLURM script that runs the parts of a sweep as an array of jobs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def sbatch(sweep: str, options: Sequence[str], name: str, parts: int, *, by_part: bool = True) -> str:
    """Return a SLURM script for an array of `parts` jobs; submitting it again runs what is missing.

    by_part: whether each job runs its own part; otherwise the jobs are identical and share the work.
    """
    command = shlex.join([sys.executable, "-m", "mtrain.cli", "sweep", sweep, *options, "--quiet"])
    if by_part:
        command += f' --part "$SLURM_ARRAY_TASK_ID/{parts}"'
    return f"""#!/bin/bash
# The sweep {name} in {parts} {"parts" if by_part else "equal jobs"}. Submit with sbatch; a job whose time
# is up is requeued and resumed, and submitting the script again runs what is missing. Add the partition, account and
# modules that your site requires.
#SBATCH --job-name=mtrain-{name}
#SBATCH --array=1-{parts}
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%a.log

cd {shlex.quote(str(Path.cwd()))} || exit 1
srun {command}
status=$?
if [ "$status" -eq 130 ]; then  # stopped with a checkpoint
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$status"
"""
