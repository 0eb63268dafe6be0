"""Renamed to `benchmarks.jobs_per_second`; this name goes in the next release."""

from benchmarks.jobs_per_second import main

if __name__ == "__main__":
    main()
