"""The network: the shared part, one head for each task, their loss, batch normalization and weights."""
