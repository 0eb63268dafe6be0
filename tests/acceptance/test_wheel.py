"""The wheel, in an environment of its own and far from the clone."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.harness.commandline import answer, pressrun

pytestmark = pytest.mark.slow

PACKAGES = ("flows", "pipeline", "workers")
EXAMPLE = Path("examples/shapes")
TRAP = "from pathlib import Path\nPath({marker!r}).touch()\nraise ImportError({name!r})\n"
QUICK = 'extends = "shapes"\n[defaults]\ncandidates = 1\nsteps = 4\nrungs = []\n'


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the clone without a download."""
    folder = tmp_path_factory.mktemp("dist")
    words = ["-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run([sys.executable, *words], check=True)
    return next(folder.glob("*.whl"))


def files(*places: Path | str) -> set[str]:
    """The files in folders of the clone, without compiled ones."""
    found = (path for place in places for path in Path(place).rglob("*"))
    return {path.as_posix() for path in found if path.is_file() and path.suffix != ".pyc"}


def test_it_holds_the_packages_and_what_the_demo_needs_alone(wheel: Path) -> None:
    packed = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    example = files(EXAMPLE / "models") | {
        f"{EXAMPLE}/{name}"
        for name in ("MODEL_CARD.md", "jobs.csv", "star.png", "knowledge/brands.jsonl")
    }
    placed = {name.replace(str(EXAMPLE), "pipeline/shapes") for name in example}
    assert packed == files(*PACKAGES) | placed


def test_the_demo_runs_from_it_beside_folders_with_the_names_of_our_packages(
    wheel: Path, tmp_path: Path
) -> None:
    environment, desk, marker = tmp_path / "environment", tmp_path / "desk", tmp_path / "imported"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    # the clone is not on this path: files .pth count in an environment's own folder alone
    site = sysconfig.get_path("purelib", vars={"base": str(environment)})
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    words = ["-m", "pip", "--python", python, "install", "--no-deps", "--ignore-installed"]
    subprocess.run([sys.executable, *words, wheel], check=True)
    for name in PACKAGES:
        (desk / name).mkdir(parents=True)
        trap = TRAP.format(marker=str(marker), name=name)
        (desk / name / "__init__.py").write_text(trap, encoding="utf-8")
    (desk / "quick.toml").write_text(QUICK, encoding="utf-8")
    command = [environment / "bin" / "pressrun"]
    settings = {"PYTHONPATH": "", "PRESSRUN_PROFILE": "quick.toml"}
    done = pressrun("demo", "--json", cwd=desk, settings=settings, command=command)
    summary = answer(done)
    assert not marker.exists()
    assert (summary["rows"], summary["invalid"], summary["failed"]) == (26, 1, 0)
    assert (desk / summary["gallery"]).is_file()
