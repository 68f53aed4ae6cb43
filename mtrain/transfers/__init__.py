"""Transfer of a pre-trained shared network to a target task (the paper, section IV-C)."""
