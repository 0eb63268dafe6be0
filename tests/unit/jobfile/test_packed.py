"""Job files that are packed, in another encoding, or one JSON document."""

import gzip
import json
from pathlib import Path

import pytest

from pipeline.errors import JobFileError
from pipeline.job import BadRow
from pipeline.jobfile.reader import FORMATS, Overrides, input_names, read_jobs
from pipeline.jobfile.rows import ROW_LIMIT
from pipeline.tabular import files

CSV = "keywords,meta.name\nred circle,Café\n"
WIDE = "keywords;meta.name\r\nroter Kreis;Größe\r\n"


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\0\0\xfe\xff"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_tells_the_encoding(read, mark: bytes, packed: bool) -> None:
    width = 32 if len(mark) == 4 else 16
    order = "le" if mark[0] else "be"
    if mark[:2] == b"\xfe\xff":
        order = "be"
    content = mark + WIDE.encode(f"utf-{width}-{order}")
    (job,) = read(gzip.compress(content), ".csv.gz") if packed else read(content)
    assert (job.keywords, job.meta) == ("roter Kreis", {"name": "Größe"})
    assert job.id == read("keywords,meta.name\nroter Kreis,Größe\n")[0].id


@pytest.mark.parametrize(
    ("encoding", "text"), [("cp1252", "Größe €"), ("cp932", "赤い丸"), ("utf-16-le", "Größe")]
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_an_encoding_that_is_named(read, beside, encoding: str, text: str, suffix: str) -> None:
    beside(f'encoding = "{encoding}"', suffix)
    row = {"keywords": "red", "meta.name": text}
    content = json.dumps(row, ensure_ascii=False) if suffix == ".jsonl" else ",".join(row) + "\n"
    content += "" if suffix == ".jsonl" else ",".join(row.values()) + "\n"
    (job,) = read(content.encode(encoding), suffix)
    assert job.meta == {"name": text}


def test_bytes_without_a_meaning_cost_their_row_alone(read, beside) -> None:
    beside('encoding = "cp1252"')
    good, bad, last = read(b"keywords\nGr\xf6\xdfe\nred\x81circle\nblue\n")
    assert (good.keywords, last.keywords) == ("Größe", "blue")
    assert isinstance(bad, BadRow)
    assert (bad.row, bad.column) == (3, "keywords")


def test_text_that_is_cut_in_a_letter(read, beside) -> None:
    with pytest.raises(JobFileError, match="not utf-16 text"):
        read(b"\xff\xfe" + WIDE.encode("utf-16-le") + b"x")


@pytest.mark.parametrize("suffix", [suffix for suffix in FORMATS if suffix.endswith(".gz")])
def test_packed_files(read, suffix: str) -> None:
    if ".json" in suffix or "nd" in suffix:
        content = '{"keywords": "red circle", "meta.name": "Café"}'
    else:
        content = CSV.replace(",", "\t") if "tsv" in suffix else CSV
    (job,) = read(gzip.compress(content.encode()), suffix)
    assert job.id == read(CSV)[0].id


@pytest.mark.parametrize("cut", [1, 12, 40, -30, -4])
def test_a_packed_file_that_is_damaged(read, cut: int) -> None:
    rows = "".join(f"red circle {n * n}\n" for n in range(20_000))
    content = gzip.compress(f"keywords\n{rows}".encode())
    with pytest.raises(JobFileError, match=r"damaged or cut short|not gzip"):
        read(content[:cut], ".csv.gz")


def test_a_packed_file_never_unpacks_without_end(read, monkeypatch) -> None:
    monkeypatch.setattr(files, "UNPACKED", 1_000_000)
    content = gzip.compress(b"keywords\nred\n" + b"\n" * 10_000_000)
    with pytest.raises(JobFileError, match=r"unpacks to more than 0 MB.*give it unpacked"):
        read(content, ".csv.gz")
    plenty = "".join(f"red circle {n * n}\n" for n in range(100_000))
    assert len(read(gzip.compress(f"keywords\n{plenty}".encode()), ".csv.gz")) == 100_000


def test_a_packed_file_is_looked_through_for_images(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv.gz"
    path.write_bytes(gzip.compress(b"keywords,image\nred,a.png\n"))
    assert list(input_names(path)) == ["a.png"]


ROWS = [{"keywords": "red [circle], {x"}, {"keywords": 'blue "star"', "meta": {"n": 3}}]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson", ".json.gz"])
@pytest.mark.parametrize("array", [True, False])
def test_json_in_any_layout(read, indent, suffix: str, array: bool) -> None:
    if array:
        content = json.dumps(ROWS, indent=indent)
    else:
        content = "\n".join(json.dumps(row, indent=indent) for row in ROWS)
    rows = read(gzip.compress(content.encode()) if "gz" in suffix else content, suffix)
    lines = read("\n".join(map(json.dumps, ROWS)), ".jsonl")
    # a brace opens a choice, and is refused in any of them
    assert [row.id for row in rows[1:]] == [row.id for row in lines[1:]]
    assert [row.row for row in rows] == [1, 2]
    assert isinstance(rows[0], BadRow)


@pytest.mark.parametrize("suffix", [".jsonl", ".json.gz"])
def test_an_object_whose_first_line_holds_a_value(read, suffix: str) -> None:
    content = '{"meta.long": "%s",\n "keywords": "red"}\n{"keywords":\n"blue"}\n' % ("x" * 20_000)
    rows = read(gzip.compress(content.encode()) if "gz" in suffix else content, suffix)
    assert [(row.keywords, row.row) for row in rows] == [("red", 1), ("blue", 2)]


def test_a_first_line_that_is_broken_off_is_a_bad_row(read) -> None:
    bad, good = read('{"keywords": "red"\n{"keywords": "blue"}\n', ".jsonl")
    assert isinstance(bad, BadRow)
    assert (good.keywords, good.row) == ("blue", 2)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ('{"keywords": Infinity}', "Infinity is not a number"),
        ('{"keywords": "a", "keywords": "b"}', "stands twice"),
        ('"red"', "not a JSON object"),
        ("3", "not a JSON object"),
        ('{"keywords": "%s"}' % ("x" * ROW_LIMIT), "longer than 64 KB"),
        ('{"keywords": %s}' % ("9" * 5000), "not JSON"),
        ('{"keywords": ["red"]}', "neither text nor a number"),
    ],
)
def test_a_bad_object_of_an_array(read, item: str, reason: str) -> None:
    first, bad, last = read(f'[{{"keywords": "a"}},\n{item},{{"keywords": "b"}}]\n', ".json")
    assert isinstance(bad, BadRow)
    assert bad.row == 2
    assert reason in bad.reason
    assert (first.keywords, last.keywords, last.row) == ("a", "b", 3)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (",", "behind object 1: the array does not end"),
        ("", "behind object 1: the array does not end"),
        (' {"keywords": "b"}]', "a comma or ] is missing"),
        (",{keywords: 1}]", "Expecting property name"),
        (', {"keywords": "b"', "Expecting ',' delimiter"),
        ("] x", "something follows the array"),
        (',{"a": ' + "[" * 60_000, "nested too deep"),
        (',{"a": "' + "x" * 3_000_000 + '"}]', "broken, or too long"),
    ],
)
def test_an_array_that_is_broken(read, end: str, reason: str) -> None:
    with pytest.raises(JobFileError, match=reason):
        read('[{"keywords": "a"}' + end, ".json")


@pytest.mark.parametrize("start", ['[{"keyword": "red circle"}]', '{\n"keyword": "red circle"\n}'])
def test_objects_are_not_taken_for_lines(read, start: str) -> None:
    with pytest.raises(JobFileError, match="Object 1: unknown column 'keyword'"):
        read(start, ".json")
    _, bad = read('[{"keywords": "a"}, 3]', ".json")
    assert bad.reason == "it is not a JSON object"


def test_an_array_is_read_as_a_stream(tmp_path: Path, profile) -> None:
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps([{"keywords": "red circle", "id": "x" * 500}] * 8_000))
    rows = read_jobs(path, profile, Overrides(), lambda _: None)
    assert next(rows).row == 1
    path.write_text("")
    with pytest.raises(JobFileError, match=r"behind object \d{4}:"):
        list(rows)
