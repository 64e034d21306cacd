"""`python -m hostagent` is the `hostagent` command, for checkouts and environments without its script on PATH."""

from hostagent.cli import main

if __name__ == "__main__":
    main()
