"""`python -m benchmarks.retrieval`."""

from benchmarks.retrieval import main

main()
