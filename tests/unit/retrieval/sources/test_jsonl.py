import pytest

from pipeline.retrieval.sources.tables import ROW_LIMIT
from pipeline.retrieval.sources.texts import BadText, Text


def test_an_object_in_each_line(read) -> None:
    content = (
        '\ufeff{"text": "a", "title": "t", "source": "https://s/x", "license": "https://l/by",'
        ' "tags": ["u", " "], "more": 1}\n'
        '\n{"text": "b", "title": null, "image": ""}\n'
    )
    assert read(content, "facts.jsonl") == [
        Text(text="a", title="t", source="https://s/x", license="https://l/by", tags=("u",)),
        Text(text="b", source="facts.jsonl"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{}", "neither a text nor an image"),
        (b'{"text": "", "image": ""}', "neither a text nor an image"),
        (b'{"text": 3}', "text: "),
        (b'{"text": "a", "tags": "b"}', "tags: "),
        (b'{"text": "a", "license": "%s"}' % (b"l" * 501), "license: "),
        (b'{"text": "a", "image": ["a.png"]}', "image: not a text"),
        (b'{"text": "http://a.b"}', "nothing is left"),
        (b'{"text": "caf\xe9"}', "not valid UTF-8"),
        (b'{"text": "\\ud800"}', "text: "),
        (b"[" * 100_000, "nested too deep"),
        (b'{"text": "%s"}' % (b"a" * (ROW_LIMIT + 1)), "longer than"),
    ],
)
def test_a_bad_line_is_reported_and_the_rest_goes_in(read, line, reason) -> None:
    good, bad, last = read(b'{"text": "a"}\n' + line + b'\n{"text": "b"}', "facts.jsonl")
    assert isinstance(bad, BadText)
    assert (bad.file, bad.line) == ("facts.jsonl", 2)
    assert reason in bad.reason
    assert [good, last] == [Text(text=t, source="facts.jsonl") for t in "ab"]
