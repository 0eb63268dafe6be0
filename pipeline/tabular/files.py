"""The bytes of job files, unpacked and in UTF-8, in bounded memory."""

import codecs
import gzip
import io
import zlib
from pathlib import Path
from typing import IO, Any, cast
from zipfile import BadZipFile

UNPACKED = 256 * 1024 * 1024
"""Bytes that may come out of any packed file; larger files may unpack to RATIO times their size."""
RATIO = 100
PIECE = 64 * 1024

BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by their byte order marks; that of UTF-32-LE begins like that of UTF-16-LE."""


class Unreadable(Exception):
    """A file cannot be read; the message is the reason."""


class Unpacked(io.RawIOBase):
    """The content of a packed stream of `packed` bytes. Reading raises Unreadable where it is
    damaged, or unpacks to far more than tables do.
    """

    def __init__(self, stream: IO[bytes], packed: int) -> None:
        self._stream = stream
        self._left = self._most = max(UNPACKED, RATIO * packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile, BadZipFile) as error:
            raise Unreadable(f"it is damaged or cut short: {error}") from error
        self._left -= len(data)
        if self._left < 0:
            raise Unreadable(
                f"it unpacks to more than {self._most // 1024**2} MB, far beyond its own size; "
                "give it unpacked"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _AsUtf8(io.RawIOBase):
    """A stream of text in any encoding, as UTF-8. Bytes without a meaning stay invalid, so that
    only the row they stand in is refused.
    """

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._stream, self._encoding = stream, encoding
        wide = encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32"))
        self._errors = "surrogatepass" if wide else "surrogateescape"
        self._decoder = codecs.getincrementaldecoder(encoding)(self._errors)
        self._ahead = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ahead:
            data = self._stream.read(PIECE)
            try:
                text = self._decoder.decode(data, not data)
                self._ahead = text.encode("utf-8", self._errors)
            except UnicodeError as error:
                raise Unreadable(f"it is not {self._encoding} text: {error}") from error
            if not data:
                break
        count = min(len(buffer), len(self._ahead))
        buffer[:count], self._ahead = self._ahead[:count], self._ahead[count:]
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_text(path: Path, encoding: str = "") -> io.BufferedReader:
    """A text file as UTF-8: a `.gz` is unpacked, and a byte order mark tells its encoding; without
    one it is in `encoding`, or UTF-8. Raises OSError; reading raises Unreadable.
    """
    stream: io.BufferedReader
    if path.suffix.lower() == ".gz":
        packed = cast(IO[bytes], gzip.open(path))  # noqa: SIM115 - closed with the stream
        stream = io.BufferedReader(Unpacked(packed, path.stat().st_size))
    else:
        stream = path.open("rb")
    try:
        start = stream.peek(4)
    except Unreadable:
        stream.close()
        raise
    encoding = next((name for bom, name in BOMS.items() if start.startswith(bom)), encoding)
    if not encoding or codecs.lookup(encoding).name == "utf-8":
        return stream
    return io.BufferedReader(_AsUtf8(stream, encoding))
