"""A disk that is full while a model is fetched: as much as a limit on a file's size is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.hub_server import hub_server

pytestmark = pytest.mark.slow

LIMITED = ("bash", "-c", 'ulimit -f 1000 && exec "$@"', "limited")
SHAPES = Path("pipeline/profile/shipped/shapes.toml")


def test_a_download_that_fills_the_disk_is_reported_and_its_model_not_used(
    tmp_path: Path, models_root: Path
) -> None:
    (tmp_path / "jobs.csv").write_text("keywords\na red circle\n")
    profile = SHAPES.read_text().replace('model = "open_clip"', 'model = "org/judge"')
    (tmp_path / "own.toml").write_text(profile)

    def check(*limited: str, offline: str = "0") -> "subprocess.CompletedProcess[str]":
        settings = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": offline,
            "PRESSRUN_MODELS": str(models_root.resolve()),
        }
        words = (sys.executable, "-m", "flows.cli", "check", "jobs.csv", "--profile", "own.toml")
        return subprocess.run(
            [*limited, *words],
            cwd=tmp_path,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
        )

    with hub_server(models_root / "open_clip") as url:
        full = check(*LIMITED)
        assert full.returncode == 1, full
        assert "Traceback" not in full.stderr
        assert f"{tmp_path}/hf/hub (" in full.stderr
        assert "HF_HOME" in full.stderr
        half_made = check(offline="1")
        assert half_made.returncode == 1, half_made
        assert "open_clip_model.safetensors" in half_made.stderr
        assert check().returncode == 0
