"""What is installed holds what the code reads."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from flows.deploy import DEPLOYMENTS
from pipeline.profile import PROFILES

PACKAGES = ("flows", "pipeline", "workers")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_beside_the_code_is_packed(package: str) -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    packed = project["tool"]["setuptools"]["package-data"]["*"]
    files = [path for path in Path(package).rglob("*") if path.is_file()]
    others = {path.name for path in files if path.suffix not in (".py", ".pyc")}
    assert {name for name in others if not any(fnmatch(name, each) for each in packed)} == set()


def test_what_is_read_by_its_place_lies_in_a_package() -> None:
    for place in (DEPLOYMENTS, PROFILES):
        assert place.relative_to(Path.cwd()).parts[0] in PACKAGES
        assert place.exists()
