"""`mtrain` and `python -m mtrain`, which torchrun needs."""

from dpconvert.runtime.loading import ended_by_signals


def main() -> None:
    """Entry point of the program; importing its commands takes a moment."""
    with ended_by_signals():
        from mtrain import cli
    cli.main()


if __name__ == "__main__":  # else the loader's processes would start it anew
    main()
