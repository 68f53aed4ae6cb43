"""`dpconvert` and `python -m dpconvert`."""

from dpconvert.runtime.loading import ended_by_signals


def main() -> None:
    """Entry point of the program; importing its commands takes a moment."""
    with ended_by_signals():
        from dpconvert import cli
    cli.main()


if __name__ == "__main__":  # else worker processes would start it anew
    main()
