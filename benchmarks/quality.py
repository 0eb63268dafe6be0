"""The model card's figures: each small model on held-out seeds, and the chain with and without
retrieval, judged by the umpire, which was trained apart from everything it judges.
"""

import json
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.common import EXAMPLE, arguments, pressrun, show
from examples.shapes import umpire
from examples.shapes.measure import adapter, judge, renderer, sees, writer

MODELS = EXAMPLE / "models"
PARTS = {"renderer": renderer, "judge": judge, "sees": sees, "writer": writer, "adapter": adapter}


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--seed", type=int, default=90_001, help="no training used it")
    parser.add_argument("--only", nargs="*", choices=[*PARTS, "chain"], default=[*PARTS, "chain"])
    given = parser.parse_args()
    report: dict[str, dict[str, Any]] = {}
    for name in given.only:
        report[name] = chain() if name == "chain" else PARTS[name].measure(MODELS, given.seed)
        show(name, report[name])
    if given.json:
        print(json.dumps(report))


def chain() -> dict[str, Any]:
    """The example's brand rows, with the knowledge base and without.

    A row is right when the umpire sees what the brand's look says, and won when it is right and
    passed the gate.
    """
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder)
        knowledge = str(EXAMPLE / "knowledge" / "brands.jsonl")
        pressrun("ingest", knowledge, "--collection", "brands", workdir=workdir)
        for name, words in {
            "with_retrieval": ["--collection", "brands"],
            "without_retrieval": ["--no-retrieval"],
        }.items():
            jobs = str(EXAMPLE / "jobs.csv")
            summary = pressrun(
                "run", jobs, "--run", name.replace("_", "-"), *words, workdir=workdir
            )
            figures |= {f"{name}_{what}": n for what, n in _brand_rows(summary).items()}
            valid = summary["rows"] - summary["invalid"]
            figures[f"{name}_accepted_of_valid"] = summary["accepted"] / valid
    return figures


def _brand_rows(summary: dict[str, Any]) -> dict[str, float]:
    looks = json.loads((EXAMPLE / "knowledge" / "truth.json").read_text(encoding="utf-8"))
    folder, reader = Path(summary["folder"]), umpire.load(MODELS / "umpire")
    right, passed = list[bool](), list[bool]()
    for line in pq.read_table(folder / "manifest.parquet").to_pylist():
        look = _look(line["keywords"], looks)
        if look is None:
            continue
        reading = reader.read(_image(folder / line["image"])[None])[0]
        right.append(umpire.confirms(reading, look))
        passed.append(line["outcome"] == "accepted")
    won = [a and b for a, b in zip(right, passed, strict=True)]
    return {
        "brand_rows": len(right),
        "brand_right": float(np.mean(right)),
        "brand_accepted": float(np.mean(passed)),
        "brand_accepted_and_right": float(np.mean(won)),
    }


def _look(keywords: str, looks: dict[str, str]) -> str | None:
    """The look of the brand that the keywords name; of several, the longest name's."""
    named = [brand for brand in looks if _plain(brand) in _plain(keywords)]
    return looks[max(named, key=len)] if named else None


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in letters if not unicodedata.combining(c))


def _image(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


if __name__ == "__main__":
    main()
