from pathlib import Path

import pytest

from pipeline.errors import KnowledgeError
from pipeline.knowledge.reading.reader import read_texts
from pipeline.knowledge.reading.texts import BadText


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.md").write_text("# A\na")
    (tmp_path / "b.TXT").write_text("b")
    (tmp_path / "c.md").write_bytes(b"\xff")
    (tmp_path / "a.png").touch()
    (tmp_path / "ignored.docx").touch()
    (tmp_path / "deep" / "d.jsonl").write_text('{"text": "d"}')
    one, two, bad, three, picture = read_texts(tmp_path)
    sources = [text.source for text in (one, two, three, picture)]
    assert sources == ["a.md#A", "b.TXT", "deep/d.jsonl", "a.png"]
    assert bad == BadText(file="c.md", line=0, reason="not valid UTF-8")


@pytest.mark.parametrize("name", ["missing.md", "facts.docx", "empty"])
def test_nothing_to_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "facts.docx").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(KnowledgeError):
        read_texts(tmp_path / name)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.txt").write_text("a")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        (bad,) = read_texts(tmp_path / "a.txt")
    assert bad == BadText(file="a.txt", line=0, reason="Permission denied")
