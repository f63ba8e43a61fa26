"""`python -m polyplane` is the command line."""

from polyplane.cli.main import main

main()
