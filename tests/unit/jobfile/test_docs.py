import re
from pathlib import Path

from pipeline.jobfile.reader import FORMATS
from pipeline.jobfile.values import READERS

PAGE = (Path(__file__).parents[3] / "docs" / "jobs.md").read_text(encoding="utf-8")


def test_every_column_is_documented_and_no_other() -> None:
    table = PAGE.split("## Columns")[1].split("## Templates")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = [name for row in rows for name in re.findall(r"`(\S+)`", row)]
    assert sorted(documented) == sorted([*READERS, "meta.NAME"])


def test_every_format_is_documented() -> None:
    assert all(f"`{suffix}`" in PAGE for suffix in FORMATS)
