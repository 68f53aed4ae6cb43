"""The mode dense: masks and points of a target task by a decoder on a frozen or trained network."""
