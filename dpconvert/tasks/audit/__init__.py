"""Audits finished tasks for what ids do not reveal: the same image in two splits, in two tasks, or with two labels.

samples.py    every sample of every task, in columns
prints.py     image -> a digest of its pixels, and its waves, which scaling and compression hardly change
nearest.py    prints -> pairs that look alike, without comparing all images
findings.py   pairs and groups -> leaks, related tasks
page.py       the pairs side by side on one page
errata.py     the pairs as entries for [[errata]] of a manifest
"""

from dpconvert.tasks.audit.findings import Audit, Link, SamplePair
from dpconvert.tasks.audit.run import audit

__all__ = ["Audit", "Link", "SamplePair", "audit"]
