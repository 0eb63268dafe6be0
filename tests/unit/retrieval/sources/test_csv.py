import pytest

from pipeline.retrieval.sources.tables import ROW_LIMIT, ROW_LINES
from pipeline.retrieval.sources.texts import BadText, Text


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_header_and_rows(read, delimiter: str) -> None:
    content = (
        "\ufefftext,title,more,source,license,tags\r\n"
        '"He said ""a"".\n\nThen b.",t,1,https://s/x,CC0,u| v |\r\n'
        "\r\n"
        "short\r\n"
    )
    assert read(content.replace(",", delimiter), "facts.csv") == [
        Text(
            text='He said "a".\n\nThen b.',
            title="t",
            source="https://s/x",
            license="CC0",
            tags=("u", "v"),
        ),
        Text(text="short", source="facts.csv"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"x,y,z", "3 fields under 2 columns"),
        (b",t", "neither a text nor an image"),
        (b"http://a.b,t", "nothing is left"),
        (b"caf\xe9,t", "not valid UTF-8"),
        (b'"x" y,t', "closing double quote"),
        (b'"x,t', "double quote"),
        (b"x" * 200_000, "longer than"),
        (b"x" * (ROW_LIMIT + 1), "longer than"),
        (b"x," + b"t" * 501, "title: "),
    ],
)
def test_a_bad_row_is_reported_and_the_rest_goes_in(read, row, reason) -> None:
    content = b'text,title\na,"\n"\n' + row + b"\nb,\n"
    good, bad, last = read(content, "facts.csv")
    assert isinstance(bad, BadText)
    assert (bad.file, bad.line) == ("facts.csv", 4)
    assert reason in bad.reason
    assert [good, last] == [Text(text=t, source="facts.csv") for t in "ab"]


def test_a_quote_left_open_costs_one_line_of_a_long_file(read) -> None:
    content = 'text\n"open\n' + "\n".join(f"fact {n}" for n in range(3 * ROW_LINES))
    bad, *texts, last = read(content + "\nx,y", "facts.csv")
    assert last.line == 3 * ROW_LINES + 3
    assert (bad.line, str(ROW_LINES) in bad.reason) == (2, True)
    assert [text.text for text in texts] == [f"fact {n}" for n in range(3 * ROW_LINES)]


def test_a_quote_left_open_before_a_line_that_is_too_long_costs_these_two(read) -> None:
    content = 'text\n"open\n' + "x" * (ROW_LIMIT + 9) + "\na\nb"
    open_quote, too_long, *texts = read(content, "facts.csv")
    assert [open_quote.line, too_long.line] == [2, 3]
    assert [text.text for text in texts] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no column"),
        ("words,title\na,b", "no column"),
        ("text,text\na,b", "twice"),
        ('"text\na', "double quote"),
        ("text\na".encode("utf-16"), "not valid UTF-8"),
        ("text," * 300_000, "longer than"),
    ],
)
def test_a_header_that_is_not_understood(read, content, reason) -> None:
    (bad,) = read(content, "facts.csv")
    assert bad.line == 1
    assert reason in bad.reason
