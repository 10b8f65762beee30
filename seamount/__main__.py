"""`python -m seamount` is the `seamount` command."""

from seamount.cli import main

if __name__ == "__main__":
    main()
