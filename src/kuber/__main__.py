"""`python -m kuber` is the `kuber` command."""

from kuber.cli import main

if __name__ == "__main__":
    main()
