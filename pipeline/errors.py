"""Every error Pressrun raises on purpose. A class's docstring is its message, with the remedy.

No message holds a secret.
"""

from pipeline.masking import mask


class PressrunError(Exception):
    """Something went wrong in Pressrun."""

    def __init__(self, detail: str = "") -> None:
        detail, summary = mask(detail), (type(self).__doc__ or "").strip()
        super().__init__(f"{summary} {detail}".strip())
        self.detail = detail


class ConfigError(PressrunError):
    """A setting is wrong; correct it and start again."""


class InUse(ConfigError):
    """The knowledge base is in use by another process; wait for it, or run a Qdrant server."""


class ModelError(PressrunError):
    """A model cannot be used; fetch it again or point the profile at another one."""


class OtherStore(ConfigError):
    """This worker has another store than the run; give both the same PRESSRUN_STORE."""


class JobFileError(PressrunError):
    """The job file as a whole cannot be read; correct it and submit it again."""


class NoJobFile(JobFileError):
    """There is no such job file; give a file's path, an s3:// address, or - for standard input."""


class Blocked(PressrunError):
    """Content safety refused this job; change the words that it names."""


class Rewritable(Blocked):
    """Content safety refused this prompt; another one may keep the rule."""

    def __init__(self, detail: str, rule: str) -> None:
        super().__init__(detail)
        self.rule = rule


class JobError(PressrunError):
    """This job failed for a reason of its own; the rest of the run goes on."""


class NothingToJudge(JobError):
    """The judges have nothing to compare the images with; give the profile one that has."""


class OutOfMemory(JobError):
    """The device has not enough memory for this image; ask for a smaller one."""


class Unavailable(PressrunError):
    """A service did not answer; check that it runs and that its address is right."""


class Refused(PressrunError):
    """A service refuses every job of the run; correct what it names, then resume the run."""


class AlreadyUp(PressrunError):
    """A stack of this home is up, or just ending; use it, or stop it first."""


class StoreError(PressrunError):
    """The store refused; check its address, its credentials and its free space."""


class StoreFull(StoreError):
    """The store is full; free some space, then go on with the run."""


class TooLarge(StoreError):
    """The store holds more than can belong there; remove it, or see who wrote it."""


class Unconditional(StoreError):
    """The store cannot create a blob only where none stands; another store can."""


class KnowledgeError(PressrunError):
    """The knowledge base refuses this; correct what it names and ingest again."""


class RunError(PressrunError):
    """The run cannot go on as asked."""


MALFORMED = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError)
"""Errors that reading malformed JSON can raise."""
