"""`python -m unposed.cli`."""

from unposed.cli import main

if __name__ == "__main__":  # processes that are started by this one import it too
    main()
