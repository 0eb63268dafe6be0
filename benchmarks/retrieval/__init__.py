"""The worth of retrieval, with the example's models and the umpire as the judge.

Four parts, each in a module of that name: looks that only the knowledge base tells
(`brand_accuracy`), facts among the first results (`fact_recall`), images that follow a collection
of images (`image_guidance`), and what a second round mends (`refinement`). Brands, facts and scenes
come from a seed that no training used.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import arguments, show
from benchmarks.plot import plot
from benchmarks.retrieval.brand_accuracy import BrandAccuracy
from benchmarks.retrieval.chain import Chain
from benchmarks.retrieval.fact_recall import FactRecall
from benchmarks.retrieval.image_guidance import ImageGuidance
from benchmarks.retrieval.refinement import Refinement

FEWEST = 8
PARTS = ("brand_accuracy", "fact_recall", "image_guidance", "refinement")
RENAMED = dict(zip(("looks", "recall", "following", "second"), PARTS, strict=True))
"""Parts by their former names, which go in the next release."""


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=200, help="brands whose logos are asked for")
    parser.add_argument("--facts", type=int, default=500, help="brands whose facts are searched")
    parser.add_argument("--seed", type=int, default=90_001, help="no training used it")
    parser.add_argument(
        "--only", nargs="*", choices=PARTS, default=PARTS, type=lambda part: RENAMED.get(part, part)
    )
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
    chain = Chain(workdir, "shapes-draft" if part == "refinement" else "shapes")
    match part:
        case "brand_accuracy":
            return BrandAccuracy(chain, rows, seed).measure()
        case "fact_recall":
            return FactRecall(chain, facts, seed).measure()
        case "refinement":
            return Refinement(chain, rows, seed).measure()
        case _:
            return ImageGuidance(chain, max(rows // 4, FEWEST), seed).measure()


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
