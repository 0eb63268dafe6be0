"""Settings of a row that change nothing, and why."""

from collections.abc import Collection, Iterator

from pipeline.job import Job
from pipeline.profile import Profile, RendererProfile

_RETRIEVING = ("passages", "references", "reference_scale", "tags", "licenses")
_WAVES = ("first_above", "race_above")


def unused(job: Job, given: Collection[str], profile: Profile) -> Iterator[tuple[str, str]]:
    """The columns that have no effect on a job, each with the reason; `given` are its row's own."""
    if job.negative and not _guided(job, profile.renderer):
        yield "negative", "the negative prompt has no effect at guidance 1 or less"
    if "style" in given and not _styled(profile):
        yield "style", "style has no effect: the profile's prompt_template does not name it"
    if "wave" in given and job.contest not in _WAVES:
        yield "wave", f"wave has no effect in the contest {job.contest}"
    if not job.collection:
        for column in _RETRIEVING:
            if column in given and getattr(job, column):
                yield column, f"{column} has no effect without a collection"
    elif "reference_scale" in given and not job.references:
        yield "reference_scale", "reference_scale has no effect without references"


def _guided(job: Job, renderer: RendererProfile) -> bool:
    """Whether guidance is on, which diffusers and A1111 each tell in their own way."""
    return job.guidance != 1 if renderer.kind == "a1111" else job.guidance > 1


def _styled(profile: Profile) -> bool:
    """Whether the writer is told the style; `{text}` may hold it."""
    writer = profile.writer
    named = "{style}" in (writer.prompt_template + writer.text_template).replace(" ", "")
    return writer.kind != "template" or named
