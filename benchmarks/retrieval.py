"""What retrieval is worth, with the example's models and the umpire as the judge.

Four parts: looks that only the knowledge base tells (`benchmarks.looks`), how well facts are found
(`benchmarks.recall`), whether images follow a collection of images (`benchmarks.following`),
and what a second round mends (`benchmarks.second`). Brands, facts and scenes come from a seed that
no training used.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.chain import Chain
from benchmarks.common import arguments, show
from benchmarks.following import Following
from benchmarks.looks import Looks
from benchmarks.plot import plot
from benchmarks.recall import Recall
from benchmarks.second import Second

FEWEST = 8
PARTS = ("looks", "recall", "following", "second")


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=200, help="brands whose logos are asked for")
    parser.add_argument("--facts", type=int, default=500, help="brands whose facts are searched")
    parser.add_argument("--seed", type=int, default=90_001, help="no training used it")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--plot", type=Path, help="an SVG file of the sweep to write")
    given = parser.parse_args()
    figures = dict[str, Any]()
    for part in given.only:
        with tempfile.TemporaryDirectory(prefix="pressrun-") as folder:
            figures |= measure(part, Path(folder), given.rows, given.facts, given.seed)
    show_all(figures)
    if given.plot and "sweep" in figures:
        given.plot.write_text(drawn(figures["sweep"]), encoding="utf-8")
    if given.json:
        print(json.dumps(figures))


def measure(part: str, workdir: Path, rows: int, facts: int, seed: int) -> dict[str, Any]:
    """The figures of one part, in a folder of its own."""
    chain = Chain(workdir, "shapes-draft" if part == "second" else "shapes")
    match part:
        case "looks":
            return Looks(chain, rows, seed).measure()
        case "recall":
            return Recall(chain, facts, seed).measure()
        case "second":
            return Second(chain, rows, seed).measure()
        case _:
            return Following(chain, max(rows // 4, FEWEST), seed).measure()


def show_all(figures: dict[str, Any]) -> None:
    """Tables of the figures, and of those by form and by reference_scale."""
    show("Retrieval", {k: v for k, v in figures.items() if isinstance(v, float)})
    if "by_form" in figures:
        rows = [{"asked": form, **shares} for form, shares in figures["by_form"].items()]
        _table("Recall at 3 by form", rows)
    if "sweep" in figures:
        _table("By reference_scale", figures["sweep"])


def drawn(sweep: list[dict[str, float]]) -> str:
    """The sweep as an SVG."""
    names = {"follows": "collection's colour", "keeps_shape": "prompt's shape"}
    lines = {name: [(each["strength"], each[key]) for each in sweep] for key, name in names.items()}
    return plot(lines, "reference_scale", "share of images")


def _table(title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(*(name.replace("_", " ") for name in rows[0]), title=title, title_justify="left")
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
