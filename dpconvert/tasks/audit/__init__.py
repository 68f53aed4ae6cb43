"""Finished tasks in, what ids do not tell out: the same pictures in two splits, in two tasks, under two labels.

samples.py    every sample of every task, in columns
prints.py     a picture -> a digest of its pixels, and its waves, which scaling and compressing hardly change
nearest.py    prints -> pairs that look alike, without comparing all
findings.py   pairs and groups -> leaks, related tasks
page.py       the pairs side by side on one page
"""

from dpconvert.tasks.audit.findings import Audit, Link, Pair
from dpconvert.tasks.audit.run import audit

__all__ = ["Audit", "Link", "Pair", "audit"]
