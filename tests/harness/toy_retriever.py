"""A retriever as a contributor would add it, in one file."""

from collections.abc import Callable
from typing import Any, Literal

from pipeline.job import Context, Job, Passage
from pipeline.models import Models
from pipeline.profile import RetrievalProfile


class PhraseProfile(RetrievalProfile):
    """The keys of `[retrieval]` for this kind."""

    kind: Literal["phrases"] = "phrases"
    phrases: tuple[str, ...] = ()


class PhraseRetriever:
    """The Retriever port over the profile's phrases: those that share a word with the keywords."""

    def __init__(
        self, _models: Models, _knowledge: Callable[[], Any], profile: PhraseProfile
    ) -> None:
        self._phrases = profile.phrases

    def retrieve(self, job: Job) -> Context:
        """At most `job.passages` phrases, in the profile's order."""
        asked = set(job.keywords.split())
        found = [phrase for phrase in self._phrases if asked & set(phrase.split())]
        return Context(
            passages=tuple(
                Passage(id=str(place), text=phrase, score=1.0)
                for place, phrase in enumerate(found[: job.passages])
            )
        )
