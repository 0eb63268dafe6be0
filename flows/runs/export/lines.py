"""One job in an export, with the same names in every format."""

import json
from typing import Any

import pyarrow as pa

from pipeline.job import BadRow, CandidateRecord, Job, Outcome, Passage, Reference
from pipeline.records.run_folder import RunFolder

Line = dict[str, Any]

SCHEMA = pa.schema(
    [
        pa.field("job_id", pa.string(), nullable=False),
        pa.field("run", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("keywords", pa.string(), nullable=False),
        pa.field("style", pa.string()),
        pa.field("collection", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("negative", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("seed", pa.uint64()),
        pa.field("steps", pa.int32()),
        pa.field("guidance", pa.float64()),
        pa.field("image_path", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("renderer", pa.string(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("device_seconds", pa.float64(), nullable=False),
        pa.field("created_at", pa.string(), nullable=False),
        pa.field(
            "candidates",
            pa.list_(
                pa.struct(
                    [
                        pa.field("index", pa.int32()),
                        pa.field("seed", pa.uint64()),
                        pa.field("score", pa.float64()),
                        pa.field("cosine", pa.float64()),
                        pa.field("invalid", pa.string()),
                    ]
                )
            ),
        ),
        pa.field(
            "sources",
            pa.list_(
                pa.struct(
                    [
                        pa.field("kind", pa.string()),
                        pa.field("id", pa.string()),
                        pa.field("title", pa.string()),
                        pa.field("source", pa.string()),
                        pa.field("license", pa.string()),
                        pa.field("score", pa.float64()),
                    ]
                )
            ),
        ),
        pa.field("notices", pa.list_(pa.string()), nullable=False),
        pa.field("models", pa.string(), nullable=False),
        pa.field("meta", pa.string(), nullable=False),
    ]
)
"""The columns in Parquet. `models` and `meta`, whose keys vary, are JSON strings."""


def line_of(row: Job | BadRow, outcome: Outcome, run_folder: RunFolder) -> Line:
    """A job and its outcome as one JSON object."""
    job = row if isinstance(row, Job) else None
    brief, image, context = outcome.brief, outcome.image, outcome.winners_context
    return {
        "job_id": row.id,
        "run": outcome.run,
        "row": row.row,
        "name": job.name if job else "",
        "keywords": row.keywords,
        "style": job.style if job else None,
        "collection": job.collection if job else None,
        "threshold": job.threshold if job else None,
        "steps": job.steps if job else None,
        "guidance": job.guidance if job else None,
        "meta": job.meta if job else {},
        "status": outcome.status.value,
        "reason": outcome.reason,
        "text": brief.text if brief else None,
        "prompt": brief.prompt if brief else None,
        "negative": brief.negative if brief else None,
        "score": outcome.score,
        "seed": outcome.seed,
        "image_path": run_folder.address(image.path) if image else None,
        "sha256": image.sha256 if image else None,
        "width": image.width if image else None,
        "height": image.height if image else None,
        "renderer": outcome.renderer,
        "seconds": sum(outcome.seconds.values()),
        "device_seconds": outcome.device_time,
        "created_at": outcome.created_at,
        "candidates": [_candidate(candidate) for candidate in outcome.candidates],
        "sources": [_source(each) for each in (*context.passages, *context.references)],
        "notices": list(outcome.notices),
        "models": outcome.models,
    }


def flat(line: Line, nested: tuple[str, ...] = ("models", "meta")) -> Line:
    """The line with these values as JSON strings."""
    return line | {
        name: json.dumps(line[name], ensure_ascii=False, sort_keys=True) for name in nested
    }


def _candidate(candidate: CandidateRecord) -> Line:
    score = candidate.score
    return {
        "index": candidate.index,
        "seed": candidate.seed,
        "score": score.calibrated if score else None,
        "cosine": score.raw if score else None,
        "invalid": None if score is None or score.valid else score.reason,
    }


def _source(passage: Passage) -> Line:
    return {
        "kind": "image" if isinstance(passage, Reference) else "text",
        **passage.model_dump(include={"id", "title", "source", "license", "score"}),
    }
