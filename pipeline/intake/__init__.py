"""Job files to jobs: CSV, JSONL and Parquet; validation; identity."""

from pipeline.intake.identity import file_digest
from pipeline.intake.making import Overrides
from pipeline.intake.reading import read_jobs

__all__ = ["Overrides", "file_digest", "read_jobs"]
