"""Renamed to `benchmarks.bare_celery`; this name goes in the next release."""

from benchmarks.bare_celery import main

if __name__ == "__main__":
    main()
