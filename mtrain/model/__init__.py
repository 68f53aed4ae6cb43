"""The network: its shared part, one head per task, the losses, batch normalization and weights."""
