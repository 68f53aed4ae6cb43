"""Networks beside each other: their transfers, paired differences, time and memory, and published scores."""
