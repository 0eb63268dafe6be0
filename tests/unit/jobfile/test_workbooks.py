"""Workbooks as spreadsheets and programs write them, and as nobody should."""

import datetime
import json
import sqlite3
import tracemalloc
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from pipeline.errors import JobFileError
from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Notice, input_names
from pipeline.tabular import files, xlsx

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def book(*rows: list[Any], name: str = "Jobs", **sheets: list[list[Any]]) -> bytes:
    """A workbook with these rows in its first sheet, as openpyxl writes it."""
    made = openpyxl.Workbook()
    made.active.title = name
    for row in rows:
        made.active.append(row)
    for other, content in sheets.items():
        sheet = made.create_sheet(other)
        for row in content:
            sheet.append(row)
    return saved(made)


def saved(made: openpyxl.Workbook) -> bytes:
    file = BytesIO()
    made.save(file)
    return file.getvalue()


def changed(content: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """A workbook whose parts are replaced; None leaves one out."""
    source, target = zipfile.ZipFile(BytesIO(content)), BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for name in source.namelist():
            if (data := change(name, source.read(name))) is not None:
                out.writestr(name, data)
    return target.getvalue()


def with_sheet(rows: str, prefix: str = "") -> bytes:
    """A workbook whose sheet has this XML in its sheetData."""
    p = prefix and f"{prefix}:"
    space = MAIN.replace("xmlns", f"xmlns:{prefix}") if prefix else MAIN
    sheet = f"<{p}worksheet {space}><{p}sheetData>{rows}</{p}sheetData></{p}worksheet>"
    texts = f"<sst {MAIN}><si><t>keywords</t></si><si><t>shared</t></si></sst>"
    link = '<Relationship Id="rId9" Target="sharedStrings.xml" Type="x/sharedStrings"/>'

    def change(name: str, data: bytes) -> bytes:
        # openpyxl asks for all formulas to be calculated, which Excel's own files do not
        text = sheet if "sheet1" in name else data.decode().replace('fullCalcOnLoad="1"', "")
        return text.replace("</Relationships>", f"{link}</Relationships>").encode()

    made = BytesIO(changed(book(["keywords"]), change))
    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr("xl/sharedStrings.xml", texts)
    return made.getvalue()


MESSY = [
    ["SKU", "Prompt", "Negative Prompt", "CFG Scale", "Seed", "needs context", "Price"],
    ["00123", "red circle", "blur", 7.5, 3, False, 2.5],
    ["00124", "Größe „M“", None, 7, None, True, 0.1 + 0.2],
]


def test_equal_rows_are_one_job_from_a_workbook_and_a_csv(read, told: list[Notice]) -> None:
    as_csv = "\n".join(
        [
            ";".join(MESSY[0]),
            "00123;red circle;blur;7.5;3;FALSE;2.5",
            "00124;Größe „M“;;7;;TRUE;0.3",
        ]
    )
    from_csv = read("\ufeff" + as_csv)
    notices, told[:] = list(told), []
    from_book = read(book(*MESSY), ".xlsx")
    assert [job.id for job in from_book] == [job.id for job in from_csv]
    assert from_book == from_csv
    assert told == notices
    assert from_book[0].meta == {"sku": "00123", "price": "2.5"}
    assert [job.row for job in from_book] == [2, 3]


def test_bad_rows_have_their_numbers_in_the_sheet(read) -> None:
    rows = read(book(["keywords", "steps"], ["a", 3], [], ["b", "many"], ["c", 2.5]), ".xlsx")
    assert [row.row for row in rows] == [2, 4, 5]
    assert [(row.column, row.reason) for row in rows[1:]] == [
        ("steps", "'many' is not a whole number"),
        ("steps", "2.5 is not a whole number"),
    ]


@pytest.mark.parametrize(
    ("value", "style", "text"),
    [
        ("00123", None, "00123"),
        (123, "00000", "00123"),
        (123, "0", "123"),
        (1.1, "0.00", "1.1"),
        (1e15 + 1, None, "1000000000000001"),
        (1.23456789012346e20, None, "123456789012346000000"),
        (1e21, None, "1e+21"),
        (123, '"SKU-"00000', "123"),
        (123, "000\\-000", "123"),
        (123, "[Red]00000;[Blue]-00000", "00123"),
        (datetime.date(2026, 11, 28), None, "2026-11-28"),
        (datetime.date(2026, 11, 28), "dd/mm/yyyy", "2026-11-28"),
        (datetime.date(1900, 2, 28), None, "1900-02-28"),
        (datetime.date(1900, 3, 1), None, "1900-03-01"),
        (datetime.datetime(2026, 11, 28, 14, 5, 9), None, "2026-11-28 14:05:09"),
        (datetime.time(6, 30), None, "06:30:00"),
        (0.25, '[Red]0.0"days"', "0.25"),
        (1.5, "[h]:mm", "1.5"),
        (46354, "[$-407]d. mmm yyyy;@", "2026-11-28"),
        (True, None, "TRUE"),
        ("a_b & <b>", None, "a_b & <b>"),
        ("two\nlines", None, "two lines"),
    ],
)
def test_values(read, value: Any, style: str | None, text: str) -> None:
    made = openpyxl.Workbook()
    made.active.append(["keywords", "x"])
    made.active.append(["a", value])
    if style:
        made.active["B2"].number_format = style
    (job,) = read(saved(made), ".xlsx")
    assert job.meta == {"x": text}


def test_a_row_of_blank_texts_is_skipped_as_in_a_csv(read) -> None:
    rows = read(book(["keywords", "x"], ["a", 1], [" ", "\t "], ["b", 2]), ".xlsx")
    assert [(row.keywords, row.row) for row in rows] == [("a", 2), ("b", 4)]


def test_long_whole_numbers_as_excel_writes_them(read) -> None:
    cells = "<c r='A2' t='s'><v>1</v></c><c r='B2'><v>1.23456789012346E+15</v></c>"
    header = "<c r='A1' t='s'><v>0</v></c><c r='B1' t='str'><v>ean</v></c>"
    (job,) = read(with_sheet(f"<row r='1'>{header}</row><row r='2'>{cells}</row>"), ".xlsx")
    assert job.meta == {"ean": "1234567890123460"}


def test_dates_that_begin_in_1904(read) -> None:
    made = openpyxl.Workbook()
    made.epoch = openpyxl.utils.datetime.CALENDAR_MAC_1904
    made.active.append(["keywords", "x"])
    made.active.append(["a", datetime.date(2026, 11, 28)])
    (job,) = read(saved(made), ".xlsx")
    assert job.meta == {"x": "2026-11-28"}


@pytest.mark.parametrize("first", [1900, 1904])
def test_the_last_day_depends_on_the_first(read, first: int) -> None:
    made = openpyxl.Workbook()
    last = 2_958_465
    if first == 1904:
        made.epoch = openpyxl.utils.datetime.CALENDAR_MAC_1904
        last -= 1462
    made.active.append(["keywords", "x", "y", "z"])
    made.active.append(["a", last, last + 1, 1e303])
    for cell in made.active[2][1:]:
        cell.number_format = "yyyy-mm-dd"
    (job,) = read(saved(made), ".xlsx")
    assert job.meta == {"x": "9999-12-31", "y": str(last + 1), "z": "1e+303"}


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("<c r='A2'><f>A1</f></c>", "A2 holds a formula that was never calculated"),
        ("<c r='A2'><f>A1</f><v></v></c>", "A2 holds a formula that was never calculated"),
        ("<c r='A2' t='e'><f>1/0</f><v>#DIV/0!</v></c>", "A2 shows #DIV/0!, an error"),
        ("<c r='A2' t='s'><v>x</v></c>", "A2 is damaged"),
        ("<c r='A2' t='s'><v>2</v></c>", "A2 is damaged"),
        ("<c r='A2' s='99'><v>1</v></c>", "A2 is damaged"),
        ("<c r='A2'><v>1,5</v></c>", "A2 is damaged"),
        ("<c r='A2'><v>1e999</v></c>", "A2 is damaged"),
        ("<c r='A2'><v>1.7976931348623157e308</v></c>", "A2 is damaged"),
        ("<c r='A2'><v>nan</v></c>", "A2 is damaged"),
        (f"<c r='A2' t='s'><v>{'9' * 20}</v></c>", "A2 is damaged"),
        (f"<c r='A2' t='s'><v>{'9' * 5000}</v></c>", "A2 is damaged"),
        ("<c r='A2' s='-1'><v>1</v></c>", "A2 is damaged"),
        (f"<c r='A2' t='str'><v>{'x' * 70_000}</v></c>", "longer than 64 KB"),
        ("<c r='A2' t='str'><v>a&#x202e;b</v></c>", "U+202E is not allowed"),
    ],
)
def test_a_cell_that_cannot_be_used_costs_its_row(read, cell: str, reason: str) -> None:
    head = "<row r='1'><c r='A1' t='s'><v>0</v></c></row>"
    last = "<row r='3'><c r='A3' t='inlineStr'><is><t>red</t></is></c></row>"
    bad, good = read(with_sheet(f"{head}<row r='2'>{cell}</row>{last}"), ".xlsx")
    assert isinstance(bad, BadRow)
    assert (bad.row, bad.column) == (2, "keywords")
    assert reason in bad.reason
    assert good.keywords == "red"


def test_formulas_of_a_program_that_calculates_nothing(read) -> None:
    good, bad = read(book(["keywords"], ["red"], ['=A2&"x"']), ".xlsx")
    assert isinstance(good, Job)
    assert "A3 holds a formula that was never calculated; open the workbook in" in bad.reason


@pytest.mark.parametrize("prefix", ["", "x"])
def test_texts_of_every_kind(read, prefix: str) -> None:
    rows = (
        "<row><c t='s'><v>0</v></c><c t='inlineStr'><is><t>id</t></is></c></row>"
        "<row><c t='inlineStr'><is><r><t>red </t></r><r><rPr/><t>circle</t></r>"
        "<rPh><t>spoken</t></rPh></is></c><c t='str'><f>1</f><v>a_x000D_b</v></c></row>"
        "<row><c t='str'><v>blue</v></c><c t='str'><v></v></c></row>"
    )
    if prefix:
        rows = rows.replace("</", f"</{prefix}:").replace("<", f"<{prefix}:")
        rows = rows.replace(f"<{prefix}:/{prefix}:", f"</{prefix}:")
    first, second = read(with_sheet(rows, prefix), ".xlsx")
    assert (first.keywords, first.name, first.row) == ("red circle", "a b", 2)
    assert (second.keywords, second.name, second.row) == ("blue", "", 3)


def test_the_sheet(read, beside) -> None:
    sheets = book(["keywords"], ["a"], name="Spring", Notes=[["keywords"], ["b"]], Empty=[])
    with pytest.raises(JobFileError, match=r"such as 'Spring' and 'Notes'; .*--sheet 'Spring'"):
        read(sheets, ".xlsx")
    beside('sheet = "notes"', ".xlsx")
    assert read(sheets, ".xlsx")[0].keywords == "b"
    beside('sheet = "Summer"', ".xlsx")
    with pytest.raises(JobFileError, match="no sheet 'Summer'; it has 'Spring', 'Notes', 'Empty'"):
        read(sheets, ".xlsx")


def test_a_sheet_behind_many_hidden_and_empty_ones(read) -> None:
    made = openpyxl.Workbook()
    made.active.append(["hidden"])
    for n in range(25):
        made.create_sheet(f"Empty {n}").sheet_state = "visible" if n % 2 else "hidden"
    for row in (["keywords"], ["red"]):
        made.create_sheet("Jobs") if "Jobs" not in made.sheetnames else None
        made["Jobs"].append(row)
    made.active.sheet_state = "hidden"
    made.active = made.sheetnames.index("Jobs")
    assert [job.keywords for job in read(saved(made), ".xlsx")] == ["red"]


def test_one_part_named_as_many_sheets_is_looked_at_once(read, monkeypatch) -> None:
    looked, rows = [], xlsx.Workbook.rows
    monkeypatch.setattr(xlsx.Workbook, "rows", lambda *said: looked.append(said) or rows(*said))

    def many(name: str, data: bytes) -> bytes:
        start, sheet, end = data.partition(b'<sheet name="Jobs"')
        rest, close, end = end.partition(b"/>")
        return data if not sheet else start + (sheet + rest + close) * 1000 + end

    with pytest.raises(JobFileError, match="is empty"):
        read(changed(book(), many), ".xlsx")
    assert len(looked) == 1


def test_what_is_hidden(read, told: list[Notice]) -> None:
    made = openpyxl.load_workbook(BytesIO(book(["keywords"], ["a"], ["b"], Old=[["x"]])))
    made["Old"].sheet_state = "hidden"
    made["Jobs"].row_dimensions[3].hidden = True
    assert [row.keywords for row in read(saved(made), ".xlsx")] == ["a", "b"]
    assert [(notice.line, notice.reason[:17]) for notice in told] == [(3, "the row is hidden")]


def test_rows_before_the_header_and_cells_beside_it(read, told: list[Notice]) -> None:
    content = book([], ["# spring"], [None, "Prompt"], [None, "red", None, "note"], [1, "blue"])
    red, blue = read(content, ".xlsx")
    assert (red.keywords, red.meta, red.row) == ("red", {"column_4": "note"}, 4)
    assert (blue.keywords, blue.meta) == ("blue", {"column_1": "1"})
    assert "values under no name" in told[-1].reason


def test_a_title_above_the_header_is_told_back(read) -> None:
    with pytest.raises(JobFileError, match=r"Row 1: there is no column 'keywords'.*'Spring 2026'"):
        read(book(["Spring 2026"], ["keywords"], ["red"]), ".xlsx")


def test_columns_and_images_of_a_workbook(read, beside, tmp_path: Path) -> None:
    content = book(["Product name", "image"], ["red", "a.png"])
    beside('[columns]\n"Product name" = "keywords"', ".xlsx")
    (bad,) = read(content, ".xlsx")
    assert (bad.keywords, bad.column) == ("red", "image")
    assert list(input_names(tmp_path / "jobs.xlsx")) == ["a.png"]


def test_a_sheet_of_two_far_cells_takes_no_memory(read) -> None:
    rows = (
        "<row r='1'><c r='A1' t='s'><v>0</v></c></row>"
        "<row r='1048576'><c r='A1048576' t='s'><v>1</v></c>"
        "<c r='XFD1048576'><v>1</v></c></row>"
    )
    (job,) = read(with_sheet(rows), ".xlsx")
    assert (job.row, job.keywords, job.meta) == (1048576, "shared", {"column_16384": "1"})


def test_texts_that_many_cells_share_are_counted_for_each(read) -> None:
    made = book(["keywords", *(f"c{n}" for n in range(100))], ["a", *["x" * 30_000] * 100])
    (bad,) = read(made, ".xlsx")
    assert bad.reason == "the row is longer than 64 KB"


ROWS = "<row><c r='A1' t='s'><v>0</v></c></row><row><c t='s'><v>1</v></c></row>"


def of_shared_texts(count: int, letters: int) -> bytes:
    """A workbook of long texts under a header, one in each row."""
    rows = "".join(f"<row><c t='s'><v>{n}</v></c></row>" for n in range(count + 1))
    texts = "".join(f"<si><t>{n}{'x' * letters}</t></si>" for n in range(count))
    return changed(
        with_sheet(rows),
        lambda name, data: data.replace(b"<si><t>shared</t></si>", texts.encode()),
    )


def row_number(data: bytes, number: str) -> bytes:
    return data.replace(b"<row><c t=", f"<row r='{number}'><c t=".encode())


def in_encoding(name: str, data: bytes, encoding: str) -> bytes:
    said = f"<?xml version='1.0' encoding='{encoding}'?>".encode()
    return said + data if "sheet1" in name else data


def times(data: bytes, tag: bytes, count: int, before: bytes) -> bytes:
    """Data with `count` elements more of a kind before its end."""
    more = b"".join(tag + b'Id="a%d" numFmtId="%d" r:id="rId1"/>' % (n, n) for n in range(count))
    return data.replace(before, more + before)


def bomb(name: str, data: bytes) -> bytes:
    return data.replace(b"</row>", b"</row>" + b"<row/>" * 400_000) if "sheet1" in name else data


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (bomb, "unpacks to more than"),
        (lambda n, d: b"<x>" * 2_000_000 if "shared" in n else d, "text of over 4 MB"),
        (lambda n, d: b"<!DOCTYPE x>" + d if "shared" in n else d, "declares a document type"),
        (lambda n, d: d[:-40] if "sheet1" in n else d, "is not XML"),
        (lambda n, d: None if "sheet1" in n else d, "lacks xl/worksheets/sheet1.xml"),
        (lambda n, d: None if n.startswith("_rels") else d, "no workbook"),
        (lambda n, d: d.replace(b"A1", b"ZZZ1") if "sheet1" in n else d, "columns"),
        (lambda n, d: row_number(d, "1048577"), "row's number is beyond 1048576"),
        (lambda n, d: row_number(d, "9" * 20), "row's number is beyond 1048576"),
        (lambda n, d: row_number(d, "9" * 5000), "row's number is beyond 1048576"),
        (lambda n, d: in_encoding(n, d, "foo"), "unknown encoding: foo"),
        (lambda n, d: in_encoding(n, d, "shift_jis"), "multi-byte encodings"),
        (lambda n, d: times(d, b"<xf ", 70_000, b"</cellXfs>"), "lists more than 65536"),
        (lambda n, d: times(d, b"<numFmt ", 70_000, b"<fonts"), "lists more than 65536"),
        (lambda n, d: times(d, b"<sheet ", 70_000, b"</sheets>"), "lists more than 65536"),
        (lambda n, d: times(d, b"<Relationship ", 70_000, b"</Relationships>"), "lists more than"),
    ],
)
def test_a_workbook_that_is_no_good(read, monkeypatch, change, reason: str) -> None:
    monkeypatch.setattr(files, "UNPACKED", 1_000_000 if change is bomb else 100_000_000)
    with pytest.raises(JobFileError, match=reason):
        read(changed(with_sheet(ROWS), change), ".xlsx")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_part_packed_by_a_method_that_unpacks_without_bound(read, method: int) -> None:
    source, target = zipfile.ZipFile(BytesIO(book(["keywords"], ["red"]))), BytesIO()
    with zipfile.ZipFile(target, "w") as out:
        for name in source.namelist():
            out.writestr(name, source.read(name), method if "sheet1" in name else None)
    with pytest.raises(JobFileError, match=r"sheet1\.xml is packed by another method"):
        read(target.getvalue(), ".xlsx")


def test_a_list_of_formats_that_is_too_large(read, monkeypatch) -> None:
    monkeypatch.setattr(xlsx, "_LISTING", 1 << 20)
    content = changed(
        book(["keywords"], ["red"]), lambda n, d: d + b" " * (1 << 20) if "styles" in n else d
    )
    with pytest.raises(JobFileError, match=r"styles\.xml takes over 1 MB"):
        read(content, ".xlsx")


def test_formats_are_read_once_for_each_kind_of_number(read, monkeypatch) -> None:
    made = openpyxl.Workbook()
    made.active.append(["keywords", *(f"c{n}" for n in range(40))])
    made.active.append(["a", *range(1, 41)])
    for n, cell in enumerate(made.active[2][1:]):
        cell.number_format = "0000"
        cell.font = openpyxl.styles.Font(size=n + 1)
    asked, read_format = [], xlsx._format
    monkeypatch.setattr(
        xlsx, "_format", lambda number, **said: asked.append(number) or read_format(number, **said)
    )
    (job,) = read(saved(made), ".xlsx")
    assert job.meta["c39"] == "0040"
    assert len(asked) == 2


def test_texts_that_find_no_room_on_the_disk(read, monkeypatch) -> None:
    connect = sqlite3.connect

    def full(*place: str, **said: Any) -> sqlite3.Connection:
        table = connect(*place, **said)
        table.execute("PRAGMA max_page_count=3")
        return table

    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(JobFileError, match=r"cannot be kept.*TMPDIR: database or disk is full"):
        read(of_shared_texts(50, 1_000), ".xlsx")


def test_few_shared_texts_are_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "jobs.xlsx"
    path.write_bytes(of_shared_texts(600, 60_000))
    with xlsx.open_workbook(path, 65_536) as opened:
        tracemalloc.start()
        try:
            assert sum(1 for _ in opened.rows(opened.sheets[0])) == 601
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()


def test_a_name_in_the_archive_that_is_not_utf_8(read) -> None:
    content = bytearray(book(["keywords"], ["red"]))
    entry = content.index(b"PK\x01\x02")
    content[entry + 9] |= 8  # its name is in UTF-8
    content[entry + 46] = 255
    with pytest.raises(JobFileError, match="it is damaged: 'utf-8' codec"):
        read(bytes(content), ".xlsx")


def test_an_archive_of_very_many_members(read, monkeypatch) -> None:
    monkeypatch.setattr(xlsx, "_DIRECTORY", 300)
    with pytest.raises(JobFileError, match="too many members"):
        read(book(["keywords"], ["red"]), ".xlsx")


@pytest.mark.parametrize("cut", [100, -100])
def test_a_workbook_that_is_cut_short(read, cut: int) -> None:
    with pytest.raises(JobFileError, match="it is damaged"):
        read(book(["keywords"], ["red"])[:cut], ".xlsx")


def test_an_empty_workbook(read) -> None:
    with pytest.raises(JobFileError, match="is empty"):
        read(book(), ".xlsx")


def test_it_reads_what_openpyxl_reads(read, told) -> None:
    words = json.loads('["Größe", "赤い丸", "a\\u00a0b", "🔴", "<&>", "\'", "=1", "-5", "1e3"]')
    rows = [[f"k{n}", *words[n % 9 :], n, n / 8, None, n % 2 == 0] for n in range(300)]
    header = ["keywords", *(f"c{n}" for n in range(14))]
    content = book(header, *([cell if cell != "=1" else "x" for cell in row] for row in rows))
    sheet = openpyxl.load_workbook(BytesIO(content), read_only=True).worksheets[0]
    jobs = read(content, ".xlsx")
    assert len(jobs) == 300
    for job, cells in zip(jobs, sheet.iter_rows(min_row=2, values_only=True), strict=True):
        assert job.keywords == cells[0]
        found = [
            str(cell).upper() if isinstance(cell, bool) else str(cell).replace("\xa0", " ")
            for cell in cells[1:]
            if cell is not None
        ]
        assert list(job.meta.values()) == found
