"""`python -m unposed.cli`."""

from unposed.cli import main

main()
