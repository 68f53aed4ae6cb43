"""`python -m dpconvert.cli`."""

from dpconvert.cli import main

if __name__ == "__main__":
    main()
