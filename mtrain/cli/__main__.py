"""`python -m mtrain.cli`."""

from mtrain.cli import main

if __name__ == "__main__":  # else the loader's processes would start it anew
    main()
