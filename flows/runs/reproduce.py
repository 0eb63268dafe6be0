"""Rendering a recorded image again."""

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.assemble.assembly import Assembly
from pipeline.assemble.stores import open_run_folder
from pipeline.errors import ConfigError, RunError
from pipeline.media.image import decode, encode
from pipeline.profile import profile_of
from pipeline.run import render_request
from pipeline.settings import Settings

TOLERANCE = 2 / 255
RENDERING = {"renderer", "unet", "image_adapter", "image_encoder"}
"""The roles of the models that make an image from a written prompt."""
RECORD = re.compile(r"(?P<store>.*?)/?runs/(?P<run>[^/]+)/records/(?P<job>[^/]+)\.json$")


def reproduce_record(record: str, settings: Settings, out: Path | None) -> dict[str, Any]:
    """Render the winner of a record again; reports its distance from the stored image.

    `difference` is the largest absolute difference of any value, in 0..1; `equal` is true within
    2/255. A lossy stored image is compared as it is. Raises RunError, and ModelError if a model is
    not the record's.
    """
    if found := RECORD.match(record):
        store = found["store"] or ("/" if record.startswith("/") else ".")
        settings = settings.model_copy(update={"store": store})
        run, job_id = found["run"], found["job"]
    else:
        run, _, job_id = record.partition("/")
    if not job_id:
        raise RunError(f"{record!r} is neither a record's address nor RUN/JOB.")
    run_folder = open_run_folder(settings, run)
    outcome = run_folder.records.outcome(job_id)
    if outcome is None:
        raise RunError(f"Run {run} has no record of job {job_id}.")
    if not outcome.image:
        raise RunError(f"Job {job_id} ended as {outcome.status} and kept no image.")
    job, brief = outcome.winners_job, outcome.winners_brief
    if not (job and brief and outcome.seed is not None):
        raise RunError(f"The record of job {job_id} does not say how it was rendered.")
    spec = run_folder.spec()
    try:
        profile = profile_of(spec).of(job.model)
    except ConfigError as error:
        raise RunError(
            f"Job {job_id} was rendered by {job.model!r}, a name that its run's profile no"
            " longer has: submit the job file again with that name for the renderer."
        ) from error
    control = f"control:{job.control}"
    used = {
        role: digest
        for role, digest in outcome.models.items()
        if role.partition(":")[0] in RENDERING or role == control
    }
    with closing(Assembly(settings)) as assembly:
        assembly.compare(profile, run, used)
        context, inputs = assembly.embedded(spec, outcome.winners_context), assembly.inputs(spec)
        request = render_request(job, context, brief, inputs, (outcome.seed,))
        again = assembly.renderer(spec).render(request)[0]
    assert again is not None  # a request without a pruner loses no image
    stored = decode(run_folder.blob(outcome.image.path))
    if out:
        out.write_bytes(encode(again, "png", ""))
    difference = float(np.abs(stored - np.round(again * 255) / 255).max())
    return {
        "run": run,
        "job_id": job_id,
        "seed": outcome.seed,
        "difference": round(difference, 5),
        "equal": difference <= TOLERANCE,
    }
