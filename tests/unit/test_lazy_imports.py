"""What must start fast must not import what is heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows.runs.open import open_run
from pipeline.assemble.stores import open_run_folder
from pipeline.jobfile.reader import Overrides
from pipeline.settings import load_settings

pytestmark = pytest.mark.slow

HEAVY = ("torch", "diffusers", "transformers", "open_clip", "prefect", "celery", "qdrant_client")
PARSERS = ("bs4", "pypdf", "pyarrow")
JOBS = Path("examples/shapes/jobs.csv")


def loaded_after(arguments: list[str]) -> set[str]:
    """The heavy modules that the command line has imported at its end."""
    code = (
        "import sys\nsys.argv = ['pressrun', *sys.argv[1:]]\nfrom flows.cli.main import main\n"
        "try:\n    main()\n"
        f"finally:\n    print('LOADED', *(m for m in {HEAVY + PARSERS} if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("LOADED")[1].split())


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_after(arguments) == set()


def test_check_imports_no_torch() -> None:
    assert not loaded_after(["check", str(JOBS)]) & {
        "torch",
        "diffusers",
        "transformers",
        "bs4",
        "pypdf",
    }


@pytest.mark.parametrize("command", ["list", "status"])
def test_runs_are_looked_at_without_what_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    store = tmp_path / "out"
    monkeypatch.setenv("PRESSRUN_STORE", str(store))
    open_run(JOBS, Overrides(), load_settings(), open_run_folder(load_settings(), "r"))
    assert not loaded_after([command]) & {"torch", "diffusers", "transformers", "prefect"}


def test_texts_are_ingested_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tmp_path / "facts.jsonl"
    facts.write_text('{"text": "a"}')
    monkeypatch.setenv("PRESSRUN_HOME", str(tmp_path / "home"))
    loaded = loaded_after(["ingest", str(facts), "--collection", "facts"])
    assert not loaded & {"torch", "diffusers", "transformers", "open_clip"}


def test_files_are_parsed_by_what_is_imported_then() -> None:
    code = (
        "import sys, pipeline.retrieval.sources.reader\n"
        f"print(*(m for m in {PARSERS} if m in sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []


def test_a_run_without_a_collection_imports_no_knowledge_base() -> None:
    code = "import sys, flows.cli.batch, flows.runs.pilot\nprint('qdrant_client' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
