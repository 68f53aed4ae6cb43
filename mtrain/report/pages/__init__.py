"""Self-contained HTML pages of runs, sweeps, comparisons, estimates and audits."""
