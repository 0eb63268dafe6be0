"""Judges that have a vision-language model reply: by the caption, and by the words in an image."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, NothingToJudge
from pipeline.job import ImageArray
from pipeline.judging.caption import CaptionJudge, CaptionJudgeProfile
from pipeline.judging.panel import Panel
from pipeline.judging.text import TextJudge, TextJudgeProfile, likeness, quotations
from pipeline.models import Models
from pipeline.models.files import references
from pipeline.models.vision_language import Reply
from pipeline.profile import JUDGES, Profile
from pipeline.retrieval.lexical import HashedEmbedder
from pipeline.telemetry import metered
from tests.harness import small_models, vision_language_models
from tests.harness.jobs import request_of

NOISE = np.random.default_rng(0).random((32, 32, 3), dtype=np.float32)
IMAGES: list[ImageArray] = [NOISE * np.float32([1, 0, 0]), NOISE * np.float32([0, 1, 0])]
BROKEN: ImageArray = np.full((32, 32, 3), np.nan, np.float32)
NUMBERS = {"slope": 10.0, "offset": -5.0}
EMBEDDING = HashedEmbedder()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vision_language_models.save("llava", tmp_path_factory.mktemp("m") / "vlm").parent


def captioner(root: Path, **keys: Any) -> CaptionJudge:
    profile = CaptionJudgeProfile(
        **{"model": "vlm", "instruction": "is there a red circle ?", **NUMBERS, **keys}
    )
    return CaptionJudge(Models(root, "cpu"), EMBEDDING, profile)


def reader(root: Path, *replies: str) -> TextJudge:
    """The judge of texts, whose model reads these in the images, one after another."""
    judge = TextJudge(Models(root, "cpu"), TextJudgeProfile(model="vlm", **NUMBERS))
    texts = iter(replies)
    judge._replies._model.replies = lambda images: [Reply(next(texts), True) for _ in images]  # type: ignore[method-assign]  # of one judge
    return judge


def test_a_caption_is_compared_with_the_text_and_recorded(root: Path) -> None:
    judge = captioner(root, max_tokens=6, against="keywords")
    request = replace(request_of("boats"), keywords="a red circle is there")
    scores = judge.score([IMAGES[0], BROKEN, IMAGES[1]], request)
    assert [score.valid for score in scores] == [True, False, True]
    for score in (scores[0], scores[2]):
        (part,) = score.parts
        words, caption = EMBEDDING.embed([request.keywords, part.reply])
        assert score.raw == part.raw == pytest.approx(float(words @ caption))
        assert score.calibrated == pytest.approx(1 / (1 + np.exp(5 - 10 * score.raw)))
    assert scores[0].parts[0].reply
    assert scores[0].parts[0].reply != scores[2].parts[0].reply


def test_captions_of_the_model_that_sees_tell_colours(models_root: Path) -> None:
    rows, columns = np.mgrid[:64, :64]
    inside = ((rows - 32) ** 2 + (columns - 32) ** 2 < 16**2)[..., None]
    red: ImageArray = np.where(inside, np.float32((0.84, 0.16, 0.18)), np.float32(0.98))
    profile = CaptionJudgeProfile(model="sees", instruction="Describe this image.", **NUMBERS)
    judge = CaptionJudge(small_models.shipped(models_root), EMBEDDING, profile)
    texts = ("a red circle on a white background", "a blue square on a white background")
    right, wrong = (judge.score([red], request_of(text))[0] for text in texts)
    assert right.raw > wrong.raw
    assert right.parts[0].reply == wrong.parts[0].reply
    assert "red" in right.parts[0].reply


def test_a_caption_that_was_cut_is_said(root: Path) -> None:
    judge = captioner(root, max_tokens=1)
    for _ in range(2):  # the second time it is remembered
        with metered() as meter:
            judge.score(IMAGES[1:], request_of("a red circle"))
        assert meter.notices == [
            "a reply to the judge 'caption' was cut, at max_tokens or 1000 characters"
        ]


def test_an_image_has_one_caption_whatever_it_is_compared_with(root: Path) -> None:
    judge, asked = captioner(root), list[int]()
    replies = judge._replies._model.replies

    def counted(images: Sequence[ImageArray]) -> list[Reply]:
        asked.append(len(images))
        return replies(images)

    judge._replies._model.replies = counted  # type: ignore[method-assign]  # of one judge
    first = judge.score(IMAGES, request_of("a red circle"))
    second = judge.score([*IMAGES, 1 - IMAGES[0]], request_of("nine boats"))
    assert [each.parts[0].reply for each in first] == [each.parts[0].reply for each in second[:2]]
    assert asked == [2, 1]


def test_a_text_that_the_embedding_cuts_is_said(root: Path) -> None:
    class Short(HashedEmbedder):
        def reads_whole(self, text: str) -> bool:
            return len(text) < 9

    profile = CaptionJudgeProfile(model="vlm", **NUMBERS)
    judge = CaptionJudge(Models(root, "cpu"), Short(), profile)
    with metered() as meter:
        judge.score(IMAGES[:1], request_of("a red circle"))
    assert "the judge 'caption' compared the beginning of the prompt" in meter.notices


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('a sign that says "OPEN 24h"', ["OPEN 24h"]),
        ("a sign that says 'Joe's Bar', at night", ["Joe's Bar"]),
        ("“Grüße” und „Guten Tag“ und ‘Joe’s Bar’", ["Grüße", "Guten Tag", "Joe’s Bar"]),
        ("«Salut» 「営業中」 『今日』 ”Hej”", ["Salut", "営業中", "今日", "Hej"]),
        ('"one" and "two" and "one"', ["one", "two"]),
        ("the dogs' bowl, the cats' bed, rock 'n' roll", []),
        ("ROCK 'N' ROLL, DRUM 'N' BASS", []),
        ("a sign 'ROCK 'N' ROLL' and 'rock 'n' roll'", ["ROCK 'N' ROLL", "rock 'n' roll"]),
        ('a 5" plate and a 7" bowl', []),
        ('an unbalanced " quote, "" and "!"', []),
        (f'"{"x" * 201}"', []),
    ],
)
def test_quoted_words_are_found(text: str, words: list[str]) -> None:
    assert quotations(text) == words


def test_a_reading_is_compared_with_the_quoted_words(root: Path) -> None:
    request = request_of('a sign "Grand  Opening" above a door with "24h"')
    judge = reader(root, "GRAND OPENING 24h", "24h “grand opening”", "GRAND 0PENING", "")
    images = [*IMAGES, 1 - IMAGES[0], 1 - IMAGES[1]]
    scores = judge.score([*images, BROKEN], request)
    # of 17 characters one is another and four are missing
    assert [score.raw for score in scores[:4]] == pytest.approx([1, 1, 12 / 17, 0])
    assert scores[1].parts[0].reply == "24h “grand opening”"
    assert not scores[4].valid


def test_a_job_that_quotes_nothing_has_no_part_of_it(root: Path) -> None:
    judge = reader(root)
    with pytest.raises(NothingToJudge, match="the prompt quotes no words"):
        judge.score(IMAGES, request_of("the dog's bowl"))


def test_a_phrase_of_a_text_is_judged_by_the_whole_texts_quotations(root: Path) -> None:
    judge = reader(root, "open")
    (score,) = judge.score(IMAGES[:1], request_of('a door, a sign "OPEN"').saying("a door"))
    assert score.raw == 1


words = st.text("ab c", max_size=8)


@given(words.filter(str.strip), words)
def test_likeness_is_one_less_the_share_of_edits(wanted: str, read: str) -> None:
    one, other = (" ".join(each.split()) for each in (wanted, read))

    def edits(one: str, other: str) -> int:  # the definition
        if not one or not other:
            return len(one or other)
        if one[0] == other[0]:
            return edits(one[1:], other[1:])
        return 1 + min(edits(one[1:], other), edits(one, other[1:]), edits(one[1:], other[1:]))

    expected = 1 - edits(one, other) / max(len(one), len(other))
    assert likeness([wanted], read) == pytest.approx(expected)


@pytest.mark.parametrize("read", ["ｓａｌｅ  NOW", "«Sale now»", "'SALE NOW'"])
def test_case_spaces_compatible_forms_and_outer_quotes_make_no_difference(read: str) -> None:
    assert likeness(["Sale", "now"], read) == likeness(["now", "Sale"], read) == 1


def test_its_parts_reach_the_record_through_the_panel(root: Path) -> None:
    judge = reader(root, "OPEN")
    panel = Panel([(TextJudgeProfile(model="vlm", **NUMBERS), judge)])
    (score,) = panel.score(IMAGES[:1], request_of('a sign "OPEN"'))
    assert [part.reply for part in score.parts] == ["OPEN"]


def profile_with(tmp_path: Path, lines: str) -> Profile:
    path = tmp_path / "mine.toml"
    path.write_text(f'extends = "shapes"\n[[judge]]\n{lines}', encoding="utf-8")
    return Profile.load(str(path))


CAPTION = '[[judge]]\nkind = "caption"\nmodel = "vlm"\nslope = 1\noffset = 0\n'


def test_captions_are_compared_by_the_embedding_of_the_retrieval(
    tmp_path: Path, root: Path
) -> None:
    profile = profile_with(tmp_path, CAPTION)
    section = profile.judge[1].beside(profile.retrieval)
    assert isinstance(section, CaptionJudgeProfile)
    assert section.embedding == "hashed"
    judge = resolve_name(JUDGES["caption"].made_by)(Models(root, "cpu"), section)
    assert len(judge.score(IMAGES, request_of("a red circle"))) == 2
    with pytest.raises(ConfigError, match=r"its embedding has to be retrieval\.embedding"):
        profile_with(tmp_path, f'{CAPTION}embedding = "other"\n')


def test_their_models_are_checked_hashed_and_recorded(tmp_path: Path) -> None:
    text = CAPTION.replace("caption", "text")
    named = references(profile_with(tmp_path, CAPTION + text))
    assert named["vision_language::caption"] == named["vision_language::text"] == "vlm"
