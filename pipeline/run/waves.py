"""The rendering and judging of a contest's candidates."""

from collections.abc import Sequence

from pipeline.cancellation import check
from pipeline.job import Brief, Candidate, Context, ImageArray, Job, RenderRequest, Rung, Score
from pipeline.judging import contest
from pipeline.ports import Ports, Renderer
from pipeline.run.requests import render_request
from pipeline.run.scoring import Scoring, scored, scoring_of
from pipeline.telemetry import stage


def hold_contest(
    job: Job,
    context: Context,
    brief: Brief,
    ports: Ports,
    begin: int = 0,
    judged: Brief | None = None,
) -> list[Candidate]:
    """Render and judge candidates, wave by wave, until the contest is decided; they are numbered
    from `begin`, and compared with `judged` where that is another brief.
    """
    scoring, candidates = scoring_of(job, context, judged or brief, ports), list[Candidate]()
    previewing = scoring_of(job, context, judged or brief, ports, previews=True)
    request: RenderRequest | None = None
    while count := contest.next_wave(job, [c.score for c in candidates]):
        check()
        first = begin + len(candidates)
        seeds = tuple(job.candidate_seed(first + offset) for offset in range(count))
        with stage("render"):
            request = request or render_request(job, context, brief, ports.inputs)
            asked = request.model_copy(update={"seeds": seeds})
            images, previews = _rendered(job, asked, previewing, ports.renderer)
        finished = [image for image in images if image is not None]
        earlier = [candidate.image for candidate in candidates]
        scores = iter(scored(finished, earlier, scoring, ports))
        for offset, (seed, image) in enumerate(zip(seeds, images, strict=True)):
            score = None if image is None else next(scores)
            seen = tuple(previews[offset])
            candidates.append(Candidate(first + offset, seed, image, score, seen))
    return candidates


def _rendered(
    job: Job, request: RenderRequest, previewing: Scoring, renderer: Renderer
) -> tuple[Sequence[ImageArray | None], Sequence[Sequence[Score]]]:
    """A wave's images, None for those dropped on the way, and the scores of the previews or the
    draft of each.
    """
    if job.contest != "draft":
        race = Race(contest.rungs(job), previewing, len(request.seeds))
        return renderer.render(request, race), race.previews
    drafts = renderer.render(request.model_copy(update={"steps": job.draft_steps}))
    scores = previewing([draft for draft in drafts if draft is not None])
    kept = contest.best(job.survivors, scores)
    seeds = tuple(request.seeds[index] for index in kept)
    finished = renderer.render(request.model_copy(update={"seeds": seeds}))
    images = dict(zip(kept, finished, strict=True))
    return [images.get(index) for index in range(len(drafts))], [[score] for score in scores]


class Race:
    """The Pruner of one wave: the judge scores the previews, the contest picks the survivors."""

    def __init__(self, rungs: Sequence[Rung], scoring: Scoring, count: int) -> None:
        self.points = [rung.at for rung in rungs]
        self.previews: list[list[Score]] = [[] for _ in range(count)]
        self._rungs, self._judge = iter(rungs), scoring
        self._left = list(range(count))

    def keep(self, previews: Sequence[ImageArray]) -> Sequence[int]:
        """The indices of the best previews, as the next rung says."""
        scores = self._judge(previews)
        for index, score in zip(self._left, scores, strict=True):
            self.previews[index].append(score)
        kept = contest.survivors(next(self._rungs), scores)
        self._left = [self._left[place] for place in kept]
        return kept
