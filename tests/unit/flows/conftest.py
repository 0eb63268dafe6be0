"""A run in a folder store whose shards have two rows each."""

from pathlib import Path

import pytest

from pipeline.assemble.stores import open_run_folder
from pipeline.records.run_folder import RunFolder
from pipeline.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(store=str(tmp_path / "out"), shard=2)


@pytest.fixture
def run_folder(settings: Settings) -> RunFolder:
    return open_run_folder(settings, "r")


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """Two jobs and, between them, a bad row."""
    path = tmp_path / "jobs.csv"
    path.write_text("keywords,steps\nred circle,2\nblue star,x\ngreen ring,2\n", encoding="utf-8")
    return path
