"""The documents say what the code does."""

import re
from pathlib import Path

import typer.main

from flows.cli import app
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


def test_links_between_documents_lead_somewhere() -> None:
    for page in [*DOCS.rglob("*.md"), *Path().glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page}: {link}"
