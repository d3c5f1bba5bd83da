"""`python -m rmctl` is the command line."""

from rmctl.cli import main

if __name__ == "__main__":
    main()
