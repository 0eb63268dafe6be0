"""Renamed to `benchmarks.knowledge_speed`; this name goes in the next release."""

from benchmarks.knowledge_speed import main

if __name__ == "__main__":
    main()
