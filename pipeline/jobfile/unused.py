"""Columns without effect on their row, and further rounds that could change nothing."""

from collections.abc import Collection, Iterator

from pipeline.job import Job
from pipeline.profile import Profile

ONE_ROUND = (
    "a further round rewrites the prompt, edits the best image or retrieves images: it needs "
    "writer.checks in the profile, or writer.questions there and an edit_strength above 0, or a "
    "collection, references of 1 or more, and a reference_scale above 0"
)
"""The reason why a row can have no further round."""
RETRIEVING = ("passages", "references", "reference_scale", "tags", "licenses")
"""Columns of retrieval."""
_NO_EDITS = "edit_strength has no effect {}"
_NO_RIVALS = "in waves of 1 race_above has no rivals, and drops nobody at the rungs: name a wave"
_CONTROLLING = ("control_scale", "control_from", "control_until")
_DRAFTING = ("draft_steps", "survivors")
_WAVES = ("first_above", "stop", "race_above")


def unused(job: Job, given: Collection[str], profile: Profile) -> Iterator[tuple[str, str]]:
    """The columns without effect on a job, each with the reason; `given` are the row's own."""
    # A1111 turns guidance off at exactly 1, diffusers at 1 and below
    guided = job.guidance != 1 if profile.renderer.kind == "a1111" else job.guidance > 1
    if job.negative and not guided:
        yield "negative", "the negative prompt has no effect at guidance 1 or less"
    if job.reference_images and not job.reference_scale:
        yield "reference_images", "reference_images have no effect at reference_scale 0"
    if "strength" in given and not job.image:
        yield "strength", "strength has no effect without an image"
    if job.image and job.strength == 1 and not job.mask:
        yield "strength", "at strength 1 little or nothing of the image is left"
    if job.control and not job.control_scale:
        yield "control", "control has no effect with a control_scale of 0"
    if not job.control:
        for column in _CONTROLLING:
            if column in given:
                yield column, f"{column} has no effect without control"
    writer = profile.writer
    if "style" in given and writer.kind == "template":
        # `{text}` in the prompt template may hold the style
        templates = writer.prompt_template + writer.text_template
        if "{style}" not in templates.replace(" ", ""):
            yield "style", "style has no effect: the profile's prompt_template does not name it"
    if "embeddings" in given:
        texts = [job.keywords, job.style, job.negative]
        if writer.kind == "template":
            texts += [writer.prompt_template, writer.text_template]
        if not all(any(map(each.pattern.search, texts)) for each in job.embeddings):
            yield "embeddings", "an embedding has no effect where no text of the row names it"
    if "wave" in given and job.contest not in _WAVES:
        yield "wave", f"wave has no effect in the contest {job.contest}"
    if "stop_below" in given and job.contest != "stop":
        yield "stop_below", f"stop_below has no effect in the contest {job.contest}"
    for column in _DRAFTING:
        if column in given and job.contest != "draft":
            yield column, f"{column} has no effect in the contest {job.contest}"
    if job.rounds > 1 and "rounds" not in given and not can_refine(job, profile):
        yield "rounds", f"rounds has no effect: {ONE_ROUND}"
    if "edit_strength" in given and job.edit_strength:
        if job.rounds == 1:
            yield "edit_strength", _NO_EDITS.format("without rounds of 2 or 3")
        elif job.image:
            yield "edit_strength", _NO_EDITS.format("on a row with an image of its own")
        elif not _has_checks(profile):
            yield "edit_strength", _NO_EDITS.format("where the writer makes no checks")
    if job.contest == "race_above" and job.wave == 1:
        yield "contest", _NO_RIVALS
    if not job.collection:
        for column in RETRIEVING:
            if (
                column in given
                and getattr(job, column)
                and not (column == "reference_scale" and job.reference_images)
            ):
                yield column, f"{column} has no effect without a collection"
    elif "reference_scale" in given and not (job.references or job.reference_images):
        yield "reference_scale", "reference_scale has no effect without references"


def can_refine(job: Job, profile: Profile) -> bool:
    """True where a further round may change something."""
    steered = job.collection and job.references and job.reference_scale
    rewritten = getattr(profile.writer, "checks", 0)
    edited = job.edit_strength and not job.image and _has_checks(profile)
    return bool(steered or rewritten or edited)


def _has_checks(profile: Profile) -> bool:
    """True where briefs have checks, so that a best candidate may lack some of them."""
    writer = profile.writer
    return bool(writer.questions if writer.kind == "template" else writer.checks)
