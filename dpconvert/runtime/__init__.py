"""What every command runs on: worker processes, locks, progress bars, terminal output."""
