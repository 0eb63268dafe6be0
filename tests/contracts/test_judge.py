"""Every judge keeps the port's promises, with the shipped model."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.job import ImageArray, JudgeRequest, Score
from pipeline.judging.aesthetic import AestheticJudge, AestheticJudgeProfile
from pipeline.judging.caption import CaptionJudge, CaptionJudgeProfile
from pipeline.judging.clip import ClipJudge
from pipeline.judging.questions_endpoint import (
    QuestionsEndpointJudge,
    QuestionsEndpointJudgeProfile,
)
from pipeline.judging.reference import ReferenceJudge, ReferenceJudgeProfile
from pipeline.judging.text import TextJudge, TextJudgeProfile
from pipeline.media.image import decode
from pipeline.models.clip import Clip, unit
from pipeline.ports import Judge
from pipeline.profile import Profile
from pipeline.retrieval.lexical import HashedEmbedder
from pipeline.settings import Settings
from tests.harness import small_models
from tests.harness.chat_server import Call, Reply, chat_server, image_in, likeliest, question_in
from tests.harness.jobs import request_of

TEXT = "a red circle on a white background"
Ask = Callable[[str], JudgeRequest]


def disc(colour: tuple[float, float, float]) -> ImageArray:
    """A disc on white, 64×64."""
    rows, columns = np.mgrid[:64, :64]
    inside = (rows - 32) ** 2 + (columns - 32) ** 2 < 16**2
    image: ImageArray = np.where(inside[..., None], np.float32(colour), np.float32(0.98))
    return image.astype(np.float32)


RED, BLUE, GREEN = disc((0.84, 0.16, 0.18)), disc((0.16, 0.31, 0.84)), disc((0.16, 0.59, 0.25))
BLACK, BROKEN = np.zeros((64, 64, 3), np.float32), np.full((64, 64, 3), np.nan, np.float32)


@pytest.fixture(scope="module")
def clip(models_root: Path) -> Judge:
    judge = Profile.load("shapes").judge[0]
    changes = {"slope": 20.0, "offset": -7.0, "batch": 4}
    return ClipJudge(small_models.shipped(models_root), judge.model_copy(update=changes))


@pytest.fixture(scope="module")
def reference(models_root: Path) -> Judge:
    profile = ReferenceJudgeProfile(encoder="open_clip", slope=20.0, offset=-7.0, batch=4)
    return ReferenceJudge(small_models.shipped(models_root), profile)


@pytest.fixture(scope="module")
def aesthetic(models_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """Marks images by their likeness to the red disc."""
    models, head = small_models.shipped(models_root), tmp_path_factory.mktemp("head")
    (red,) = unit(Clip(models, "open_clip", "judge").encode_images([RED]))
    save_file({"weight": red[None], "bias": np.zeros(1, np.float32)}, head / "head.safetensors")
    profile = AestheticJudgeProfile(
        model="open_clip", head=str(head), slope=20.0, offset=-7.0, batch=4
    )
    return AestheticJudge(models, profile)


@pytest.fixture(scope="module")
def questions_endpoint() -> Iterator[Judge]:
    """Asks a server that tells colours by their distance from the question's, sooner or later."""

    def answer(call: Call) -> Reply:
        colour = GREEN if "green" in question_in(call) else RED
        distance = float(np.abs(decode(image_in(call)) - colour).mean())
        time.sleep(distance / 10)
        chance = 0.99 * math.exp(-5 * distance)
        return likeliest({"Yes": chance, "No": 1 - chance})

    with chat_server(answer) as server:
        profile = QuestionsEndpointJudgeProfile(model="m", at_once=4)
        judge = QuestionsEndpointJudge(Settings(judge_url=server.url), profile)
        yield judge
        judge.close()


SEES = {"model": "sees", "instruction": "Describe this image.", "batch": 4}


@pytest.fixture(scope="module")
def caption(models_root: Path) -> Judge:
    profile = CaptionJudgeProfile(**SEES, slope=10.0, offset=-5.0)
    return CaptionJudge(small_models.shipped(models_root), HashedEmbedder(), profile)


class Quoting(TextJudge):
    """Takes all that is asked for as a quotation, and the caption as the text in the image."""

    def score(self, images: Sequence[ImageArray], request: JudgeRequest) -> Sequence[Score]:
        wanted = f"a {request.prompt[:150]}".strip()
        return super().score(images, request_of(f'"{wanted}"'))


@pytest.fixture(scope="module")
def text(models_root: Path) -> Judge:
    profile = TextJudgeProfile(**SEES, slope=30.0, offset=-27.0)
    return Quoting(small_models.shipped(models_root), profile)


@pytest.fixture(scope="module")
def ask(models_root: Path) -> Ask:
    """The request of a text, with an image of its colour."""
    encoder = Clip(small_models.shipped(models_root), "open_clip", "image_encoder")
    seen = encoder.encode_images([RED, GREEN])
    shown = dict(zip(("red", "green"), seen.tolist(), strict=True))

    def asked(text: str) -> JudgeRequest:
        image = shown["green" if "green" in text else "red"]
        return replace(request_of(text), references=(tuple(image),))

    return asked


@pytest.fixture(
    scope="module",
    params=["clip", "questions_endpoint", "reference", "aesthetic", "caption", "text"],
)
def judge(request: pytest.FixtureRequest) -> Judge:
    judge: Judge = request.getfixturevalue(request.param)
    return judge


def raws(judge: Judge, images: Sequence[ImageArray], request: JudgeRequest) -> list[float]:
    return [score.raw for score in judge.score(images, request)]


def test_one_score_per_image_in_order_and_higher_is_better(judge: Judge, ask: Ask) -> None:
    images = [BLUE, RED, GREEN]
    assert int(np.argmax(raws(judge, images, ask(TEXT)))) == 1
    green = raws(judge, images, ask(TEXT.replace("red", "green")))
    likes_red = isinstance(judge, AestheticJudge)
    assert int(np.argmax(green)) == (1 if likes_red else 2)
    assert raws(judge, [], ask(TEXT)) == []


def test_an_invalid_image_scores_nothing_and_says_why(judge: Judge, ask: Ask) -> None:
    scores = judge.score([BLACK, RED, BROKEN], ask(TEXT))
    assert [score.valid for score in scores] == [False, True, False]
    for score in (scores[0], scores[2]):
        assert (score.raw, score.calibrated) == (0, 0)
        assert score.reason
    assert scores[1] == judge.score([RED], ask(TEXT))[0]


def test_invalid_images_alone_are_no_error(judge: Judge, ask: Ask) -> None:
    assert [score.valid for score in judge.score([BROKEN, BLACK], ask(TEXT))] == [False, False]


@pytest.mark.parametrize("text", ["", "?", TEXT, (TEXT + ". ") * 40, "x" * 500, "赤い丸 🔴"])
def test_any_text_gets_a_number(judge: Judge, ask: Ask, text: str) -> None:
    (score,) = judge.score([RED], ask(text))
    assert math.isfinite(score.raw)
    assert -1 <= score.raw <= 1 + 1e-6
    assert 0 <= score.calibrated <= 1
    assert score.valid


def test_a_score_is_the_same_in_any_company(judge: Judge, ask: Ask) -> None:
    tasks = [
        ([RED, BLUE, GREEN, RED, BLUE], ask(TEXT)),
        ([BLUE], ask("a blue ring")),
        ([GREEN, BLACK], ask(TEXT)),
    ]
    alone = [raws(judge, *task) for task in tasks * 4]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda task: raws(judge, *task), tasks * 4))
    for one, other in zip(alone, together, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
