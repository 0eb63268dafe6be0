"""`python -m flows.cli`: the command line."""

from flows.cli.main import main

main()
