"""The requests that a job makes of renderer and judge."""

from pipeline.emphasis import plain, sections_of
from pipeline.errors import JobError
from pipeline.job import (
    MASKED,
    Brief,
    Context,
    Control,
    Embedding,
    InputImage,
    Job,
    JudgeRequest,
    LoadedImage,
    RenderRequest,
)
from pipeline.media.image import luminance
from pipeline.ports import Inputs, Ports


def render_request(
    job: Job, context: Context, brief: Brief, inputs: Inputs, seeds: tuple[int, ...] = ()
) -> RenderRequest:
    """The request for candidates with these seeds: the brief's prompt, the retrieved images and
    those of the row, at the job's settings. Raises JobError.
    """

    def loaded(image: InputImage | None) -> LoadedImage | None:
        return inputs.load(image, job.width, job.height) if image else None

    control = None
    if job.control and (image := loaded(job.control_image)):
        control = Control(
            job.control, image, job.control_scale, job.control_from, job.control_until
        )
    masked = loaded(job.mask)
    if masked and luminance(masked.pixels).max() < MASKED:
        raise JobError("the mask is black everywhere: nothing would be painted")
    named = _named(job, inputs)
    embeddings = (
        *named,
        *(reference.embedding for reference in context.references if reference.scale),
    )
    return RenderRequest(
        prompt=brief.prompt,
        negative=brief.negative,
        width=job.width,
        height=job.height,
        steps=job.steps,
        guidance=job.guidance,
        seeds=seeds,
        references=embeddings,
        named=len(named),
        reference_scale=job.reference_scale if embeddings else 0.0,
        loras=job.loras,
        model=job.model,
        image=loaded(job.image),
        strength=job.strength if job.image else 1.0,
        mask=masked,
        embeddings=job.embeddings,
        control=control,
    )


def judge_request(job: Job, context: Context, brief: Brief, ports: Ports) -> JudgeRequest:
    """The texts, checks and images that a job's candidates are compared with. Raises JobError."""

    def words(text: str) -> str:
        try:
            return words_of(text, job, ports)
        except JobError:
            return text  # no renderer reads it: a time in brackets is no weight

    prompt, text, keywords = (
        words_of(brief.prompt, job, ports),
        words(brief.text),
        words(job.keywords),
    )
    retrieved = tuple(each.embedding for each in context.references if each.embedding)
    references = (*_named(job, ports.inputs), *retrieved)
    checks = tuple(
        check.model_copy(update={"question": words(check.question)}) for check in brief.checks
    )
    return JudgeRequest(prompt, text, keywords, checks, references)


def _named(job: Job, inputs: Inputs) -> tuple[Embedding, ...]:
    """Embeddings of the images that a row names to steer its render."""
    return tuple(inputs.embed(image) for image in job.reference_images if job.reference_scale)


def words_of(text: str, job: Job, ports: Ports) -> str:
    """The text without the weights that the job's renderer reads in a prompt. Raises JobError."""
    return plain(sections_of(text)) if job.model in ports.weighted else text
