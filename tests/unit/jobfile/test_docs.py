import re
from pathlib import Path

import pytest
from annotated_types import Ge, Le, Lt, MultipleOf

from pipeline.jobfile.reader import FORMATS
from pipeline.options import COLUMNS, settable

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "jobs.md").read_text(encoding="utf-8")


def rows_of(text: str) -> dict[str, tuple[str, str]]:
    """Default and meaning of each name in a table, as written."""
    lines = (line[2:] for line in text.splitlines() if line.startswith("| `"))
    rows = [re.split(r" *(?<!\\)\| *", line) for line in lines]
    return {name: (row[1], row[2]) for row in rows for name in re.findall(r"`(\S+)`", row[0])}


TABLE = rows_of(PAGE.split("## Columns")[1].split("## Templates")[0])
DEFAULTS = rows_of((DOCS / "profiles.md").read_text(encoding="utf-8").split("`[defaults]`: ")[1])


def test_every_column_is_documented_and_no_other() -> None:
    assert sorted(TABLE) == sorted([*COLUMNS, "meta.NAME"])


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_is_documented_in_its_own_words_and_bounds(column: str) -> None:
    _, field, mark = COLUMNS[column]
    default, meaning = TABLE[column]
    assert meaning.startswith(field.description or "?"), f"begin with: {field.description}"
    for bound in field.metadata:
        match bound:
            case Ge(limit) | Le(limit) | MultipleOf(limit):
                assert re.search(rf"\b{limit}\b", meaning)
            case Lt(limit):
                assert re.search(rf"\b{limit - 1}\b", meaning)
    assert (default == "profile") == ("profile" in mark.by and mark.default is not None)


def test_a_profiles_defaults_are_documented_in_the_columns_words() -> None:
    for name, (field, _) in settable("profile").items():
        _, meaning = DEFAULTS[f"defaults.{name}"]
        assert meaning.startswith(field.description or "?"), f"{name}: {field.description}"


def test_every_format_is_documented() -> None:
    assert all(f"`{suffix}`" in PAGE for suffix in FORMATS)
