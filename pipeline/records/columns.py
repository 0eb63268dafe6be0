"""The columns of an outcome, each declared once for the manifest, exports and the gallery."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.job import Reference
from pipeline.record import Outcome


@dataclass(frozen=True)
class Column:
    """A value of an outcome, with its type in Parquet."""

    type: pa.DataType
    of: Callable[[Outcome], Any]
    nullable: bool = False
    as_json: bool = False
    """An object whose keys vary: a JSON string in Parquet."""


Columns = Mapping[str, Column]
"""The columns of a format by the names that it publishes, in order."""


def schema_of(columns: Columns) -> pa.Schema:
    """The Parquet schema of these columns."""
    return pa.schema(
        [pa.field(name, column.type, column.nullable) for name, column in columns.items()]
    )


def line_of(columns: Columns, outcome: Outcome) -> dict[str, Any]:
    """An outcome as a JSON object with these columns."""
    return {name: column.of(outcome) for name, column in columns.items()}


def table_of(columns: Columns, outcomes: Sequence[Outcome]) -> pa.Table:
    """Outcomes as a table with these columns, a row each."""
    arrays = []
    for column in columns.values():
        values = map(column.of, outcomes)
        stored = map(json_text, values) if column.as_json else values
        arrays.append(pa.array(list(stored), column.type))
    return pa.Table.from_arrays(arrays, schema=schema_of(columns))


json_text = json.JSONEncoder(ensure_ascii=False, sort_keys=True).encode
"""A nested value as the JSON string that it is in a table; equal values give equal strings."""


_TEXT, _NUMBER, _INTEGER, _SEED = pa.string(), pa.float64(), pa.int32(), pa.uint64()

COLUMNS: Columns = {
    "job_id": Column(_TEXT, lambda o: o.job_id),
    "run": Column(_TEXT, lambda o: o.run),
    "row": Column(pa.int64(), lambda o: o.row),
    "name": Column(_TEXT, lambda o: o.job.name if o.job else ""),
    "keywords": Column(_TEXT, lambda o: o.keywords),
    "style": Column(_TEXT, lambda o: o.job and o.job.style, nullable=True),
    "collection": Column(_TEXT, lambda o: o.job and o.job.collection, nullable=True),
    "status": Column(_TEXT, lambda o: o.status.value),
    "reason": Column(_TEXT, lambda o: o.reason),
    "text": Column(_TEXT, lambda o: o.winners_brief and o.winners_brief.text, nullable=True),
    "prompt": Column(_TEXT, lambda o: o.winners_brief and o.winners_brief.prompt, nullable=True),
    "negative": Column(
        _TEXT, lambda o: o.winners_brief and o.winners_brief.negative, nullable=True
    ),
    "score": Column(_NUMBER, lambda o: o.score, nullable=True),
    "threshold": Column(_NUMBER, lambda o: o.job and o.job.threshold, nullable=True),
    "seed": Column(_SEED, lambda o: o.seed, nullable=True),
    "steps": Column(_INTEGER, lambda o: o.job and o.job.steps, nullable=True),
    "guidance": Column(_NUMBER, lambda o: o.job and o.job.guidance, nullable=True),
    "winner": Column(_INTEGER, lambda o: o.winner, nullable=True),
    "image": Column(_TEXT, lambda o: o.image and o.image.path, nullable=True),
    "sha256": Column(_TEXT, lambda o: o.image and o.image.sha256, nullable=True),
    "perceptual_hash": Column(_TEXT, lambda o: o.image and o.image.perceptual_hash, nullable=True),
    "width": Column(_INTEGER, lambda o: o.image and o.image.width, nullable=True),
    "height": Column(_INTEGER, lambda o: o.image and o.image.height, nullable=True),
    "renderer": Column(_TEXT, lambda o: o.renderer),
    "seconds": Column(_NUMBER, lambda o: sum(o.seconds.values())),
    "device_seconds": Column(_NUMBER, lambda o: o.device_time),
    "created_at": Column(_TEXT, lambda o: o.created_at),
    "candidates": Column(
        pa.list_(
            pa.struct(
                {
                    "index": _INTEGER,
                    "seed": _SEED,
                    "score": _NUMBER,
                    "raw": _NUMBER,
                    "invalid": _TEXT,
                }
            )
        ),
        lambda o: [
            {
                "index": each.index,
                "seed": each.seed,
                "score": each.score.calibrated if each.score else None,
                "raw": each.score.raw if each.score else None,
                "invalid": each.score.reason if each.score and not each.score.valid else None,
            }
            for each in o.candidates
        ],
        nullable=True,
    ),
    "candidate_count": Column(_INTEGER, lambda o: len(o.candidates)),
    "sources": Column(
        pa.list_(
            pa.struct(
                {
                    "kind": _TEXT,
                    "id": _TEXT,
                    "title": _TEXT,
                    "source": _TEXT,
                    "license": _TEXT,
                    "score": _NUMBER,
                    "used": pa.bool_(),
                }
            )
        ),
        lambda o: [
            {
                "kind": "image" if isinstance(each, Reference) else "text",
                "id": each.id,
                "title": each.title,
                "source": each.source,
                "license": each.license,
                "score": each.score,
                "used": o.uses(each),
            }
            for each in o.winners_context.sources
        ],
        nullable=True,
    ),
    "passage_sources": Column(
        pa.list_(_TEXT),
        lambda o: [
            each.source or each.title or each.id for each in o.context.passages if o.uses(each)
        ],
    ),
    "notices": Column(pa.list_(_TEXT), lambda o: list(o.notices)),
    "models": Column(_TEXT, lambda o: o.models, as_json=True),
    "meta": Column(_TEXT, lambda o: o.job.meta if o.job else {}, as_json=True),
}
