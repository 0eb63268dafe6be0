"""`python -m benchmarks.soak`."""

from benchmarks.soak import main

main()
