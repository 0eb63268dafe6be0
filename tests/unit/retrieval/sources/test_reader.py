from pathlib import Path

import pytest

from pipeline.errors import KnowledgeError
from pipeline.retrieval.sources.reader import read_texts
from pipeline.retrieval.sources.texts import BadText


def test_a_folder_is_read_in_depth_and_other_files_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.md").write_text("# A\na")
    (tmp_path / "b.TXT").write_text("b")
    (tmp_path / "c.md").write_bytes(b"\xff")
    (tmp_path / "a.png").touch()
    (tmp_path / "ignored.docx").touch()
    (tmp_path / "deep" / "d.jsonl").write_text('{"text": "d"}')
    one, two, bad, three, image = read_texts(tmp_path)
    sources = [text.source for text in (one, two, three, image)]
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


def test_links_that_lead_out_of_the_folder_are_reported(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "s.txt").write_text("secret")
    folder = tmp_path / "facts"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "b.txt").symlink_to("a.txt")
    (folder / "out.txt").symlink_to("../secret/s.txt")
    (folder / "passwd.md").symlink_to("/etc/passwd")
    (folder / "deep").symlink_to("../secret")
    found = list(read_texts(folder))
    texts = [text.text for text in found if not isinstance(text, BadText)]
    bad = {item.file: item.reason for item in found if isinstance(item, BadText)}
    assert texts == ["a", "a"]
    assert bad == dict.fromkeys(
        ("out.txt", "passwd.md"), "leads out of the folder that is ingested"
    )
    assert [text.text for text in read_texts(folder / "out.txt")] == ["secret"]  # named itself
