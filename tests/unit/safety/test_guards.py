"""Guards refuse by place, drop what can be dropped, and are closed where they cannot decide."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.cancellation import Cancelled
from pipeline.errors import Blocked, ModelError, StoreError
from pipeline.job import Context, ImageArray, InputImage, Passage, Reference
from pipeline.media.image import to_image
from pipeline.safety.guards import Guards, ImageGuard, TextGuard
from pipeline.telemetry import metered
from tests.harness.jobs import make_job
from tests.harness.libraries import blocking

PLACES = ("inputs", "references", "output")
DARK, BRIGHT = (np.full((8, 8, 3), level, np.float32) for level in (0.25, 0.75))
STORED = {
    f"knowledge/images/{0:064x}.png": DARK,
    f"knowledge/images/{1:064x}.png": BRIGHT,
    f"inputs/{0:064x}.png": DARK,
    f"inputs/{1:064x}.png": BRIGHT,
}


class Brightness:
    """An image's mean is the chance that it shows what is refused."""

    def load(self) -> None:
        """There is no model."""

    def chances(self, images: Sequence[ImageArray]) -> list[float]:
        return [float(image.mean()) for image in images]


class Answering(Brightness):
    """Answers as it is told."""

    def __init__(self, answer: Callable[[Sequence[ImageArray]], list[float]]) -> None:
        self._answer = answer

    def chances(self, images: Sequence[ImageArray]) -> list[float]:
        return self._answer(images)


def raising(error: Exception) -> Answering:
    def answer(images: Sequence[ImageArray]) -> list[float]:
        raise error

    return Answering(answer)


def guards(check: Brightness, action: str = "drop", places: Sequence[str] = PLACES) -> Guards:
    guard = ImageGuard("glare", action, places, 0.5, check)
    return Guards(images=[guard], stored=STORED.__getitem__)


def reference(number: int) -> Reference:
    key = f"knowledge/images/{number:064x}.png"
    return Reference(id=f"r{number}", text="", score=1, image=key, scale=0.5)


def named(number: int) -> InputImage:
    return InputImage(path=f"{number}.png", sha256=f"{number:064x}", width=8, height=8)


CONTEXT = Context(references=(reference(0), reference(1)))


def test_a_refused_image_is_left_out_where_it_can_be() -> None:
    glare = guards(Brightness())
    with metered() as meter:
        assert glare.screened(CONTEXT).references == (reference(0),)
    reason = "guard 'glare' at {}: chance 0.75, threshold 0.5"
    assert meter.notices == [f"{reason.format('references')}: source r1 is left out"]
    assert glare.refusals([DARK, BRIGHT, DARK]) == ["", reason.format("output"), ""]
    glare.check_inputs(make_job(image=named(0)))
    for column in ("image", "control_image"):
        with pytest.raises(Blocked, match=r"'glare' at inputs: .* 0.75.*1.png"):
            glare.check_inputs(make_job(**{column: named(1)}, control="canny"))
    with pytest.raises(Blocked, match="'glare' at inputs"):
        glare.check_inputs(make_job(reference_images=(named(0), named(1))))


def test_an_image_that_is_not_finite_is_not_asked_about() -> None:
    broken = np.full_like(BRIGHT, np.nan)
    reasons = guards(Brightness()).refusals([broken, BRIGHT, broken])
    assert [bool(reason) for reason in reasons] == [False, True, False]
    assert guards(raising(ValueError())).refusals([broken]) == [""]


def test_a_guard_that_blocks_does_so_in_all_places() -> None:
    glare = guards(Brightness(), "block")
    for call in (lambda: glare.screened(CONTEXT), lambda: glare.refusals([DARK, BRIGHT])):
        with pytest.raises(Blocked, match=r"'glare' at (references|output): chance 0.75"):
            call()
    assert glare.screened(Context(references=(reference(0),))).references
    words = Guards([TextGuard("words", "block", ("passages",), lambda text: "")])
    passage = Passage(id="p", text="a skull", score=1)
    assert words.screened(Context(passages=(passage,))).passages
    words = Guards(
        [TextGuard("words", "block", ("passages",), lambda text: "the text holds 'skull'")]
    )
    with pytest.raises(Blocked, match=r"'words' at passages: the text holds 'skull' \(source p\)"):
        words.screened(Context(passages=(passage,)))


def test_it_is_asked_in_its_own_places_alone() -> None:
    glare = guards(Brightness(), places=("output",))
    assert glare.screened(CONTEXT) == CONTEXT
    glare.check_inputs(make_job(image=named(1)))
    glare.check_source("", to_image(BRIGHT))
    assert guards(Brightness(), places=("inputs", "references")).refusals([BRIGHT]) == [""]
    Guards([TextGuard("w", "drop", ("prompt",), str)]).check_text("any", "keywords")


def test_texts_of_passages_and_of_images_are_left_out() -> None:
    said = Reference(**reference(0).model_dump() | {"text": "a sk-ull"})
    titled = Passage(id="p", title="Skull", text="a circle", score=1)
    kept = Passage(id="q", text="a skullcap", score=1)
    context = Context(passages=(titled, kept), references=(said, reference(1)))
    with metered() as meter:
        found = blocking("skull").screened(context)
    assert (found.passages, found.references) == ((kept,), (reference(1),))
    assert [notice.split(": source ")[1] for notice in meter.notices] == [
        "p is left out",
        "r0 is left out",
    ]


def test_a_source_is_refused_at_ingest() -> None:
    glare = guards(Brightness(), places=("references",))
    glare.check_source("any text", to_image(DARK))
    with pytest.raises(Blocked, match="'glare' at references"):
        glare.check_source("any text", to_image(BRIGHT))
    with pytest.raises(Blocked, match="'terms' at passages"):
        blocking("skull").check_source("a skull", Image.new("RGB", (8, 8)))


UNDECIDED = {
    "it raises": (raising(RuntimeError("worn out")), "RuntimeError: worn out"),
    "it is unloaded": (raising(ModelError("no such folder")), "ModelError.*no such folder"),
    "it is no number": (Answering(lambda images: [float("nan")] * len(images)), "not a number"),
    "it is infinite": (Answering(lambda images: [float("-inf")] * len(images)), "not a number"),
    "it is missing": (Answering(lambda images: []), "0 answers for 1 images"),
    "it is a text": (Answering(lambda images: ["no"] * len(images)), "ValueError"),  # type: ignore[list-item]
}


@pytest.mark.parametrize(("check", "reason"), UNDECIDED.values(), ids=UNDECIDED)
def test_a_guard_that_cannot_decide_blocks(check: Answering, reason: str) -> None:
    closed = guards(check)
    calls: dict[str, Callable[[], object]] = {
        "inputs": lambda: closed.check_inputs(make_job(image=named(0))),
        "references": lambda: closed.screened(CONTEXT),
        "output": lambda: closed.refusals([DARK]),
    }
    for place, call in calls.items():
        with pytest.raises(Blocked, match=f"'glare' at {place} could not decide: .*{reason}"):
            call()
    with pytest.raises(Blocked, match=reason):
        closed.check_source("", to_image(DARK))


def test_a_guard_of_texts_that_raises_blocks() -> None:
    def found(text: str) -> str:
        raise ZeroDivisionError

    closed = Guards([TextGuard("words", "drop", ("keywords", "passages", "prompt"), found)])
    for place in ("keywords", "prompt"):
        with pytest.raises(Blocked, match=f"'words' at {place} could not decide: ZeroDivision"):
            closed.check_text("any", place)
    with pytest.raises(Blocked, match="'words' at passages could not decide"):
        closed.screened(Context(passages=(Passage(id="p", text="any", score=1),)))


def test_an_image_that_cannot_be_read_blocks() -> None:
    gone = Guards(images=[ImageGuard("glare", "drop", PLACES, 0.5, Brightness())], stored={}.pop)
    with pytest.raises(Blocked, match="'glare' at references could not decide: KeyError"):
        gone.screened(CONTEXT)


@pytest.mark.parametrize(
    "error",
    [
        Cancelled(),
        StoreError("no answer"),
        RuntimeError("CUDA error: an illegal memory access"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
    ],
)
def test_what_is_done_again_is_no_refusal(error: Exception) -> None:
    with pytest.raises(type(error)):
        guards(raising(error)).refusals([DARK])


def test_a_stored_image_is_looked_at_once() -> None:
    seen = list[int]()

    def answer(images: Sequence[ImageArray]) -> list[float]:
        seen.append(len(images))
        return [0.1] * len(images)

    glare = guards(Answering(answer))
    for _ in range(3):
        assert glare.screened(CONTEXT) == CONTEXT
    assert seen == [1, 1]


def test_all_checks_are_closed_whichever_cannot_be() -> None:
    closed = list[str]()

    class Closing(Brightness):
        def __init__(self, name: str) -> None:
            self._name = name

        def close(self) -> None:
            closed.append(self._name)
            if self._name == "first":
                raise OSError("it cannot be closed")

    names = ("first", "second")
    checks = [ImageGuard(name, "drop", PLACES, 0.5, Closing(name)) for name in names]
    with pytest.raises(OSError, match="it cannot be closed"):
        Guards(images=checks).close()
    assert closed == ["first", "second"]
