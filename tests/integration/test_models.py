"""A run over several models, as its workers see it."""

from itertools import groupby
from pathlib import Path
from random import Random

import pytest

from tests.harness.commandline import answer, pressrun_here
from tests.harness.connected import Workdir, workers

pytestmark = pytest.mark.slow

MODELS = ("", "a", "b")
ROWS = 90
PROFILE = 'extends = "shapes"\n' + "".join(
    f'[renderers.{name}]\nkind = "a1111"\nmodel = "{name}"\n' for name in filter(None, MODELS)
)


def test_each_of_two_workers_meets_each_model_once(
    prefect_server: str, redis_url: str, tmp_path: Path
) -> None:
    models = [MODELS[row % len(MODELS)] for row in range(ROWS)]
    Random(0).shuffle(models)
    assert changes(models) > ROWS / 2, "the file mixes them"
    rows = "".join(f"circle {row},{model}\n" for row, model in enumerate(models))
    (tmp_path / "jobs.csv").write_text("keywords,model\n" + rows, encoding="utf-8")
    (tmp_path / "three.toml").write_text(PROFILE, encoding="utf-8")
    settings = {
        "PREFECT_API_URL": prefect_server, "PRESSRUN_REDIS_URL": redis_url,
        "PRESSRUN_PROFILE": "three.toml", "PRESSRUN_SHARD": "30", "PRESSRUN_CONCURRENCY": "2",
        "STAND_IN_TALLY": str(tmp_path / "tally"), "STAND_IN_SECONDS": "0.02",
    }  # fmt: skip
    with workers(Workdir(tmp_path, settings), 2):
        run = pressrun_here(
            "run", "jobs.csv", "--candidates", "1", "--json", cwd=tmp_path, settings=settings
        )
    assert answer(run)["accepted"] == ROWS
    met = dict[str, list[str]]()
    for line in (tmp_path / "tally").read_text(encoding="utf-8").splitlines():
        _, worker, model = line.split(" ")
        met.setdefault(worker, []).append(model)
    assert len(met) == 2
    assert [changes(each) for each in met.values()] == [len(MODELS) - 1] * 2


def changes(models: list[str]) -> int:
    return len(list(groupby(models))) - 1
