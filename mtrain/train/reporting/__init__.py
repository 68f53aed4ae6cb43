"""What a training says and logs about itself: remarks before it, lines and numbers during it."""
