"""What a worker opens, and when."""

from pathlib import Path

import pytest

from pipeline.assemble.assembly import Assembly
from pipeline.errors import InUse
from pipeline.job import Context
from pipeline.profile import QdrantProfile
from pipeline.retrieval.client import open_client
from pipeline.settings import load_settings
from tests.harness.jobs import make_job


def test_the_knowledge_base_is_opened_by_the_first_job_that_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.assemble.assembly.PATIENCE", 0.0)
    held = open_client("", "", tmp_path / "knowledge")
    assembly = Assembly(load_settings(home=tmp_path, store=str(tmp_path / "out")))
    plain, other = (assembly._retriever(QdrantProfile(dense=dense)) for dense in (0.6, 0.5))
    asking = make_job(1, collection="brands", passages=1)
    assert plain.retrieve(make_job(1)) == Context()
    with pytest.raises(InUse, match="PRESSRUN_QDRANT_URL"):
        plain.retrieve(asking)
    held.close()
    for retriever in (plain, other):  # one process, one lock
        with pytest.raises(Exception, match="There is no collection 'brands'"):
            retriever.retrieve(asking)
