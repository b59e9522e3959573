"""`python -m standalone`: the same as `ion`."""

from standalone.cli import main

if __name__ == "__main__":
    main()
