import pytest

from pipeline.retrieval.sources.chunks import LONGEST


@pytest.mark.parametrize(
    "body",
    [
        "\n\n".join(f"Paragraph {n} " + "word " * 30 for n in range(40)),
        " ".join(f"Sentence {n} of many." for n in range(400)),
        "word " * 2000,
        "x" * 5000,
    ],
)
def test_long_texts_become_several(read, body: str) -> None:
    texts = read(body, "long.md")
    assert len(texts) == pytest.approx(len(body) / LONGEST, abs=3)
    assert all(len(text.text) <= LONGEST for text in texts)
    assert "".join("".join(text.text for text in texts).split()) == "".join(body.split())
