"""Workbooks (.xlsx, ECMA-376) as a stream of rows: neither sheets nor their texts are in memory.

openpyxl holds every text, and calamine the whole sheet, empty cells included; neither tells a
formula that was never calculated from an empty cell.
"""

import posixpath
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from functools import cache, cached_property, lru_cache, partial
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from pipeline.tabular.files import Unpacked, Unreadable

Cell = str | int | float

MOST_COLUMNS = 16_384
MOST_ROWS = 1_048_576
_DIRECTORY = 4 * 1024 * 1024
"""Bytes of an archive's directory, which is read at once."""
_ELEMENT = 4 * 1024 * 1024
"""Bytes of XML without the end of a row or a text."""
_PIECE = 4 * 1024
"""Bytes of XML parsed together, whose rows are held at once."""
_LISTING = 64 * 1024 * 1024
"""Bytes of a part that lists links, sheets or formats, which are held together."""
_ENTRIES = 65_536
"""Links, sheets, or formats of a workbook; Excel writes up to 65,490 formats of cells."""
_TEXTS = 64
"""Shared texts at hand, of up to a row's letters each."""
_DATES = frozenset(map(str, [*range(14, 23), *range(27, 37), 45, 47, *range(50, 59)]))
"""The built-in number formats of dates and times (ECMA-376, 18.8.30)."""
_ASIDE = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?![hms]+\])[^][]*\]', re.IGNORECASE)
"""Parts of a number format that say nothing of its kind: texts, fillers, colours, languages."""
_COLOURS = re.compile(r"\[[^][]*\]")
"""Colours, languages and conditions, which change no digit."""
_ZEROS = re.compile("(0{2,255})(;.*)?", re.DOTALL)
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")
_LETTERS = re.compile("[A-Z]{1,3}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a sheet: its number, and the values of its cells by column, counted from 0.

    `problem` is the reason why the cell in column `place` cannot be used.
    """

    number: int
    cells: dict[int, Cell] = field(default_factory=dict)
    hidden: bool = False
    place: int = 0
    problem: str = ""


class Sheet(NamedTuple):
    """A worksheet's name, its part of the archive, and whether it is hidden."""

    name: str
    part: str
    hidden: bool


class _NoValue(Exception):
    """A cell has no value; the message is the reason."""


@contextmanager
def open_workbook(path: Path, row_limit: int) -> Iterator["Workbook"]:
    """A workbook, whose rows may have `row_limit` letters each. Raises Unreadable, also while its
    rows are read, and OSError.
    """
    try:
        with path.open("rb") as file:
            _check_directory(file.read(8), path)
        with ZipFile(path) as archive:
            yield Workbook(archive, row_limit)
    except sqlite3.Error as error:
        raise Unreadable(
            "its shared texts cannot be kept in the folder for temporary files; make room there, "
            f"or name another one in TMPDIR: {error}"
        ) from error
    except (BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise Unreadable(f"it is damaged: {error}") from error
    except (ValueError, OverflowError) as error:  # a name or an offset in the archive's directory
        raise Unreadable(f"it is damaged: {error}") from error
    except expat.ExpatError as error:
        raise Unreadable(f"it is damaged: one of its parts is not XML: {error}") from error


class Workbook:
    """The sheets of a workbook, in their order."""

    def __init__(self, archive: ZipFile, row_limit: int) -> None:
        self._archive, self._limit = archive, row_limit
        self._parts: dict[str, ZipInfo] = {
            info.filename.replace("\\", "/").lower(): info for info in archive.infolist()
        }
        related = self._related("")
        book = next((part for kind, part in related.values() if kind == "officedocument"), "")
        self._book_related = self._related(book)
        self.sheets = list[Sheet]()
        self._epoch, self._stale = date(1899, 12, 30), False
        for name, said in self._tags(book):
            if name == "sheet":
                link = next((value for key, value in said.items() if key.endswith(":id")), "")
                kind, part = self._book_related.get(link, ("", ""))
                if kind == "worksheet":
                    _check_room(self.sheets, book)
                    hidden = said.get("state", "visible") != "visible"
                    self.sheets.append(Sheet(said.get("name", ""), part, hidden))
            elif name == "workbookPr" and _is_true(said.get("date1904")):
                self._epoch = date(1904, 1, 1)
            elif name == "calcPr":
                # libraries that write formulas without values leave them to the next program
                self._stale = _is_true(said.get("fullCalcOnLoad"))

    def rows(self, sheet: Sheet) -> Iterator[Row]:
        """The rows of a sheet that have a value, in its order."""
        reader = _SheetReader(self._text, self._formats, self._limit, self._stale)
        for row in self._parsed(sheet.part, reader):
            if row.problem or any(str(cell).strip() for cell in row.cells.values()):
                yield row

    def _related(self, part: str) -> dict[str, tuple[str, str]]:
        """The parts that a part names, by the names of the links: their kinds and places."""
        folder, name = posixpath.split(part)
        links = posixpath.join(folder, "_rels", f"{name}.rels")
        related = dict[str, tuple[str, str]]()
        for name, said in self._tags(links):
            if name == "Relationship":
                _check_room(related, links)
                place = posixpath.normpath(posixpath.join("/", folder, said.get("Target", "")))
                kind = said.get("Type", "").rpartition("/")[2].lower()
                related[said.get("Id", "")] = kind, place.lstrip("/")
        return related

    def _part_of(self, kind: str) -> str:
        return next((part for each, part in self._book_related.values() if each == kind), "")

    @cached_property
    def _formats(self) -> list[Callable[[str], Cell]]:
        """The reader of numbers for each cell format."""
        formats, codes, inside = list[Callable[[str], Cell]](), dict[str, str](), ""
        if not (part := self._part_of("styles")):
            return formats
        format_of = cache(partial(_format, codes=codes, epoch=self._epoch))
        for name, said in self._tags(part):
            if name in ("cellXfs", "cellStyleXfs", "dxfs"):
                inside = name
            elif name == "numFmt":
                _check_room(codes, part)
                codes[said.get("numFmtId", "")] = said.get("formatCode", "")
            elif name == "xf" and inside == "cellXfs":
                _check_room(formats, part)
                formats.append(format_of(said.get("numFmtId", "0")))
        return formats

    @cached_property
    def _text(self) -> Callable[[int], str]:
        """The shared texts by number. They lie in the temporary folder; the latest are at hand."""
        table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        table.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE texts (place INTEGER PRIMARY KEY, text TEXT); BEGIN"
        )
        if part := self._part_of("sharedstrings"):
            texts = enumerate(self._parsed(part, _TextReader(self._limit)))
            table.executemany("INSERT INTO texts VALUES (?, ?)", texts)

        def text(place: int) -> str:
            found = table.execute("SELECT text FROM texts WHERE place = ?", (place,)).fetchone()
            if not found:
                raise IndexError(place)
            return _unescaped(found[0])

        return lru_cache(_TEXTS)(text)

    def _tags(self, part: str) -> Iterator[tuple[str, dict[str, str]]]:
        """The elements of a part as they begin: names and attributes."""
        info = self._parts.get(part.lower())
        if info and info.file_size > _LISTING:
            raise Unreadable(f"it is no workbook: {part} takes over {_LISTING >> 20} MB")
        return self._parsed(part, _TagReader())

    def _parsed(self, part: str, reader: "_Reader") -> Iterator[Any]:
        """The results of a reader on a part of the archive, as it is unpacked."""
        info = self._parts.get(part.lower())
        if info is None:
            raise Unreadable(f"it is no workbook, or damaged: it lacks {part or 'its parts'}")
        if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            # the unpackers of the others give all that a piece holds, which may be without bound
            raise Unreadable(f"it is no workbook: {part} is packed by another method than deflate")
        parser, since = reader.parser(), 0
        with Unpacked(self._archive.open(info), info.compress_size) as content:
            while not reader.over and (piece := content.read(_PIECE)):
                try:
                    parser.Parse(piece)
                except LookupError as error:
                    raise Unreadable(f"it is damaged: {part}: {error}") from error
                since += len(piece)
                if reader.done:
                    since = 0
                    yield from reader.done
                    reader.done.clear()
                elif since > _ELEMENT:
                    raise Unreadable(f"{part} holds a row or text of over {_ELEMENT >> 20} MB")
            if not reader.over:
                parser.Parse(b"", True)
                yield from reader.done


class _Reader:
    """Collects results from the events of an XML parser in `done`, until `over`."""

    def __init__(self) -> None:
        self.done = list[Any]()
        self.over = False

    def parser(self) -> expat.XMLParserType:
        """A parser that reports to this reader, whatever prefix its elements have."""
        parser = expat.ParserCreate()
        parser.buffer_text = True

        def begin(name: str, _: dict[str, str]) -> None:
            prefix, start, end = name[: name.find(":") + 1], self.start, self.end
            if prefix:  # some writers name all elements x:…
                parser.StartElementHandler = lambda name, said: start(
                    name.removeprefix(prefix), said
                )
                parser.EndElementHandler = lambda name: end(name.removeprefix(prefix))
            else:
                parser.StartElementHandler, parser.EndElementHandler = start, end

        parser.StartElementHandler = begin
        parser.CharacterDataHandler = self.characters
        parser.StartDoctypeDeclHandler = _no_doctype
        return parser

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""

    def end(self, name: str) -> None:
        """An element ends."""

    def characters(self, data: str) -> None:
        """Text within an element."""


class _TagReader(_Reader):
    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.done.append((name, attributes))


class _TextReader(_Reader):
    """The texts of `<si>` elements, without the pronunciation of East Asian ones."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit, self._text, self._open = limit, list[str](), False
        self._spoken = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "t":
            self._open = not self._spoken
        elif name == "rPh":
            self._spoken = True

    def end(self, name: str) -> None:
        if name == "t":
            self._open = False
        elif name == "rPh":
            self._spoken = False
        elif name == "si":
            # one letter more than a row may have, so that a longer text is refused
            self.done.append("".join(self._text)[: self._limit + 1])
            self._text.clear()

    def characters(self, data: str) -> None:
        if self._open:
            self._text.append(data)


class _SheetReader(_TextReader):
    """The rows of a sheet."""

    def __init__(
        self,
        text_of: Callable[[int], str],
        formats: list[Callable[[str], Cell]],
        limit: int,
        stale: bool,
    ) -> None:
        super().__init__(limit)
        self._text_of, self._formats, self._stale = text_of, formats, stale
        self._row, self._size = Row(0), 0
        self._place, self._said, self._formula = -1, dict[str, str](), False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "c":
            self._said, self._formula = attributes, False
            self._text.clear()
            self._place = _place(attributes.get("r", ""), self._place + 1)
        elif name == "v":
            self._open = True
        elif name == "f":
            self._formula = True
        elif name == "row":
            given = attributes.get("r", "")
            number = int(given[:7]) if given.isdecimal() else self._row.number + 1
            if len(given) > 7 or number > MOST_ROWS:
                raise Unreadable(f"it is damaged: a row's number is beyond {MOST_ROWS}")
            self._row = Row(number, hidden=_is_true(attributes.get("hidden")))
            self._size, self._place = 0, -1
        else:
            super().start(name, attributes)

    def end(self, name: str) -> None:
        if name == "v":
            self._open = False
        elif name == "c":
            self._end_cell()
        elif name == "row":
            self.done.append(self._row)
        elif name == "sheetData":
            self.over = True
        else:
            super().end(name)

    def _end_cell(self) -> None:
        text, row = "".join(self._text), self._row
        self._text.clear()
        if row.problem:
            return
        try:
            value = self._value(text)
        except (_NoValue, ValueError, IndexError) as error:
            reason = str(error) if isinstance(error, _NoValue) else "is damaged"
            reason = f"{_letters(self._place)}{row.number} {reason}"
            self._row = Row(row.number, row.cells, row.hidden, self._place, reason)
            return
        if isinstance(value, str):
            self._size += len(value)
            if self._size > self._limit:
                reason = f"the row is longer than {self._limit // 1024} KB"
                self._row = Row(row.number, row.cells, row.hidden, self._place, reason)
                return
        if value != "":
            row.cells[self._place] = value

    def _value(self, text: str) -> Cell:
        """A cell's value. Raises _NoValue with the reason why it has none, and
        ValueError or IndexError for one that is damaged.
        """
        kind = self._said.get("t", "n")
        never = self._stale or (kind == "n" and not text)
        if self._formula and never:
            raise _NoValue(
                "holds a formula that was never calculated; open the workbook in Excel or "
                "LibreOffice and save it"
            )
        match kind:
            case "s":
                return self._text_of(_index(text))
            case "n":
                style = self._said.get("s", "")
                number = self._formats[_index(style)] if style and style != "0" else _number
                return number(text) if text else ""
            case "b":
                return "TRUE" if _is_true(text) else "FALSE"
            case "e":
                raise _NoValue(f"shows {text[:20]}, an error of its formula; correct it")
        return _unescaped(text)


def _check_directory(start: bytes, path: Path) -> None:
    """Raise Unreadable for a file that is no ZIP archive, or one of very many members."""
    if start == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise Unreadable(
            "it is protected by a password, or an old .xls; save it as .xlsx without a password"
        )
    if not start.startswith(b"PK\x03\x04"):
        raise Unreadable(
            "it is no workbook; save it from Excel or Sheets as .xlsx, or as CSV UTF-8"
        )
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 65_557))  # the longest comment behind the directory's end
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end >= 0 and int.from_bytes(tail[end + 12 : end + 16], "little") > _DIRECTORY:
        raise Unreadable("it is no workbook: the archive has too many members")


def _check_room(held: Sized, part: str) -> None:
    """Raise Unreadable where a list is full."""
    if len(held) >= _ENTRIES:
        raise Unreadable(f"it is no workbook: {part} lists more than {_ENTRIES} of a kind")


def _no_doctype(*_: object) -> None:
    raise Unreadable("it is no workbook: one of its parts declares a document type")


def _is_true(value: str | None) -> bool:
    return value in ("1", "true")


def _index(text: str) -> int:
    """A place in a list. Raises ValueError, and IndexError below 0 or beyond 32 bits."""
    if not 0 <= (index := int(text)) < 1 << 31:
        raise IndexError(text)
    return index


def _place(reference: str, otherwise: int) -> int:
    """The column of a reference such as C5, counted from 0."""
    found = _LETTERS.match(reference)
    place = _column(found[0]) if found else otherwise
    if place >= MOST_COLUMNS:
        raise Unreadable(f"it is damaged: a row has more than {MOST_COLUMNS} columns")
    return place


@lru_cache(1024)
def _column(letters: str) -> int:
    place = 0
    for letter in letters:
        place = place * 26 + ord(letter) - 64
    return place - 1


def _letters(place: int) -> str:
    """The letters of a column, as a sheet shows them."""
    letters, place = "", place + 1
    while place:
        place, rest = divmod(place - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def _unescaped(text: str) -> str:
    """Text without the escapes of characters that XML cannot hold, such as _x000D_."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text


def _format(number: str, codes: dict[str, str], epoch: date) -> Callable[[str], Cell]:
    """The reader of the numbers in cells of a number format."""
    # the second part of a format is that of negative numbers
    code = _ASIDE.sub("", codes.get(number, "")).partition(";")[0]
    if "[" in code:  # elapsed time
        return _number
    if number in _DATES or re.search("[dmyhs]", code, re.IGNORECASE):
        return partial(_moment, epoch)
    if zeros := _ZEROS.fullmatch(_COLOURS.sub("", codes.get(number, ""))):
        return lambda text: str(_number(text)).zfill(len(zeros[1]))
    return _number


def _number(text: str) -> int | float:
    """A number with the 15 digits that a sheet shows; a whole one as an integer.

    Raises ValueError, also for one that is infinite.
    """
    if len(text) < 20 and text.isdecimal():
        return int(text)
    shown = f"{float(text):.15g}"
    value = float(shown)
    if not isfinite(value):
        raise ValueError(text)
    # a float of more than 15 digits has others behind those that are shown
    return int(Decimal(shown)) if value.is_integer() and abs(value) < 1e21 else value


def _moment(epoch: date, text: str) -> Cell:
    """A date, a time or both in ISO 8601, of a serial number of days."""
    serial = float(text)
    if not 0 <= serial <= (date.max - epoch).days:
        return _number(text)
    days, seconds = divmod(round(serial * 86_400), 86_400)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if not days:
        return clock
    if epoch.year == 1899 and days < 60:  # Excel counts a 29 February 1900
        days += 1
    day = (epoch + timedelta(days=days)).isoformat()
    return f"{day} {clock}" if seconds else day
