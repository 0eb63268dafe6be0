"""Renamed to `benchmarks.jobfile_speed`; this name goes in the next release."""

from benchmarks.jobfile_speed import main

if __name__ == "__main__":
    main()
