"""The worth of retrieval, with the example's models and the umpire as the judge.

Five parts, each in a module of that name: looks that only the knowledge base tells
(`brand_accuracy`), facts among the first results (`fact_recall`), rows that are about no source
(`floor`), images that follow a collection of images (`image_guidance`), and what a second round
mends (`refinement`). Brands, facts and scenes come from a seed that no training used.
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
from benchmarks.retrieval.floor import Floor
from benchmarks.retrieval.image_guidance import ImageGuidance
from benchmarks.retrieval.refinement import Refinement
from pipeline.profile import FLOOR

FEWEST = 8
PARTS = ("brand_accuracy", "fact_recall", "floor", "image_guidance", "refinement")
RENAMED = {
    "looks": "brand_accuracy",
    "recall": "fact_recall",
    "following": "image_guidance",
    "second": "refinement",
}
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
    parser.add_argument(
        "--embedding", default="", help="text encoder for `floor`, in place of hashed words"
    )
    parser.add_argument("--plot", type=Path, help="an SVG file of the sweep to write")
    given = parser.parse_args()
    figures = dict[str, Any]()
    for part in given.only:
        with tempfile.TemporaryDirectory(prefix="pressrun-") as folder:
            figures |= measure(
                part, Path(folder), given.rows, given.facts, given.seed, given.embedding
            )
    show_all(figures)
    if given.plot and "sweep" in figures:
        given.plot.write_text(drawn(figures["sweep"]), encoding="utf-8")
    if given.json:
        print(json.dumps(figures))


def measure(
    part: str, workdir: Path, rows: int, facts: int, seed: int, embedding: str = ""
) -> dict[str, Any]:
    """The figures of one part, in a folder of its own."""
    profile = "shapes-draft" if part == "refinement" else "shapes"
    if part == "floor" and embedding:
        profile = str(workdir / "encoder.toml")
        section = f"embedding = {json.dumps(embedding)}\nfloor = {FLOOR}\n"
        Path(profile).write_text(f'extends = "shapes"\n[retrieval]\n{section}')
    chain = Chain(workdir, profile)
    match part:
        case "brand_accuracy":
            return BrandAccuracy(chain, rows, seed).measure()
        case "fact_recall":
            return FactRecall(chain, facts, seed).measure()
        case "floor":
            return Floor(chain, max(facts // 5, 5), seed).measure()
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
    if "floor_by_form" in figures:
        _table("Recall with the floor, as a share of recall without", [figures["floor_by_form"]])
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
