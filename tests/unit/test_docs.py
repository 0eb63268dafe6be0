"""The documents say what the code does."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from flows.cli.main import app
from pipeline.judging.contrasts import CHANGES
from pipeline.settings import Settings

DOCS = Path("docs")


def test_every_setting_is_documented_with_its_default() -> None:
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        row = re.search(rf"^\| `PRESSRUN_{name.upper()}` \| (.*?) \|", text, re.MULTILINE)
        assert row, name
        if isinstance(field.default, str | int) and field.default != "":
            assert f"`{field.default}`" == row[1]


def test_no_setting_is_documented_that_is_not_there() -> None:
    documents = "".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md"))
    documents += Path("README.md").read_text(encoding="utf-8")
    named = {name.lower() for name in re.findall(r"\bPRESSRUN_([A-Z0-9_]+)\b", documents)}
    assert named - set(Settings.model_fields) == set()


def test_the_readme_shows_every_command_and_the_two_that_matter_first() -> None:
    readme = Path("README.md").read_text(encoding="utf-8")
    assert readme.index("make demo") < readme.index("make test") < readme.index("pressrun run")
    for name in vars(typer.main.get_command(app))["commands"]:
        assert f"pressrun {name}" in readme
    makefile = Path("Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z]+)\b", readme):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.slow
def test_the_page_of_commands_is_as_the_commands_are(tmp_path: Path) -> None:
    recipe = next(
        line for line in Path("Makefile").read_text("utf-8").splitlines() if "utils docs" in line
    )
    words = shlex.split(recipe)[1:-1]
    subprocess.run([sys.executable, "-m", "typer", *words, tmp_path / "cli.md"], check=True)
    made = (tmp_path / "cli.md").read_text(encoding="utf-8")
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == made, "try `make docs`"


@pytest.mark.slow
def test_the_site_is_whole(tmp_path: Path) -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert {page for page in pages if page not in Path("mkdocs.yml").read_text("utf-8")} == set()
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fonts.googleapis" not in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_links_between_documents_lead_somewhere() -> None:
    for page in [*DOCS.rglob("*.md"), *Path().glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page}: {link}"


def test_the_words_that_contrasts_change_are_documented() -> None:
    text = (DOCS / "judging.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ([a-z, ]+) \| ([a-z, ]+) \|$", text, re.MULTILINE)
    listed = [(kind, *(", ".join(each.split()) for each in words)) for kind, *words in CHANGES]
    assert [row for row in rows if row[0] in {kind for kind, *_ in CHANGES}] == listed
