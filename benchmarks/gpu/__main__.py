"""`python -m benchmarks.gpu`."""

from benchmarks.gpu import main

main()
