"""Digests of files are remembered for other processes, and never outlive a change."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.assemble.assembly import Assembly
from pipeline.assemble.models import model_digests
from pipeline.models import digests
from pipeline.models.digests import sha256_of
from pipeline.profile import Profile
from pipeline.settings import load_settings

EMPTY = hashlib.sha256().hexdigest()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "home" / "digests.json"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two files that count as settled."""
    monkeypatch.setattr(digests, "SETTLED_SECONDS", -1)
    paths = [tmp_path / name for name in ("a.safetensors", "b.json")]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 1000)
    return paths


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read."""
    names: list[str] = []
    whole = hashlib.file_digest

    def counting(file: object, algorithm: str) -> object:
        names.append(Path(str(getattr(file, "name", ""))).name)
        return whole(file, algorithm)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counting)
    return names


def test_a_file_is_read_once(files: list[Path], cache: Path, hashed: list[str]) -> None:
    first = sha256_of(files, cache)
    assert sha256_of(files, cache) == first
    assert sha256_of(files[::-1], cache) == first[::-1]
    assert sorted(hashed) == ["a.safetensors", "b.json"]
    assert sha256_of(files) == first
    assert len(hashed) == 4


def test_another_process_reads_none(files: list[Path], cache: Path) -> None:
    wanted = sha256_of(files, cache)
    code = (
        "import sys, hashlib\nfrom pathlib import Path\n"
        "from pipeline.models.digests import sha256_of\n"
        "def refuse(*_): raise AssertionError('it reads a file')\n"
        "hashlib.file_digest = refuse\n"
        "print(*sha256_of([Path(p) for p in sys.argv[2:]], Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(cache), *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == wanted


@pytest.mark.parametrize("times", ["new", "given back"])
def test_a_change_of_equal_size_is_seen(files: list[Path], cache: Path, times: str) -> None:
    before, old = sha256_of(files, cache), files[0].stat()
    files[0].write_bytes(b"x" * 1000)
    if times == "given back":
        os.utime(files[0], ns=(old.st_atime_ns, old.st_mtime_ns))
        assert files[0].stat().st_mtime_ns == old.st_mtime_ns
    after = sha256_of(files, cache)
    assert after == sha256_of(files)
    assert (after[0] == before[0], after[1] == before[1]) == (False, True)


def test_a_file_in_anothers_place_is_seen(files: list[Path], cache: Path, tmp_path: Path) -> None:
    sha256_of(files, cache)
    other = tmp_path / "other"
    other.write_bytes(b"y" * 1000)
    os.utime(other, ns=(0, files[0].stat().st_mtime_ns))
    other.rename(files[0])
    assert sha256_of(files, cache) == sha256_of(files)


def test_a_young_file_is_not_trusted(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "young"
    file.write_bytes(b"1")
    sha256_of([file], cache)
    assert not cache.exists()


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"[" * 100_000, b'{"a": 1}', b'{"a": [[1, 2], "x"]}', b"\xff"]
)
def test_a_damaged_memory_is_made_anew(
    files: list[Path], cache: Path, damage: bytes, hashed: list[str]
) -> None:
    wanted = sha256_of(files, cache)
    cache.write_bytes(damage)
    assert sha256_of(files, cache) == wanted
    hashed.clear()
    assert sha256_of(files, cache) == wanted
    assert not hashed


def test_a_place_that_cannot_be_written_is_no_error(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    assert sha256_of(files, tmp_path / "home" / "digests.json") == sha256_of(files)


def test_files_that_are_gone_are_forgotten(files: list[Path], cache: Path) -> None:
    sha256_of(files, cache)
    files[0].unlink()
    files[1].write_bytes(b"")
    assert sha256_of(files[1:], cache) == [EMPTY]
    assert list(json.loads(cache.read_bytes())) == [str(files[1])]


def test_a_worker_hashes_nothing_that_the_command_has_hashed(
    tmp_path: Path, models_root: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[str]
) -> None:
    monkeypatch.setattr(digests, "SETTLED_SECONDS", -1)
    settings = load_settings(
        home=tmp_path / "home", store=str(tmp_path / "out"), models=models_root
    )
    profile = Profile.load("shapes")
    found = model_digests(settings, profile)
    assert hashed
    hashed.clear()
    models = Assembly(settings).models
    assert models.digest(profile.judge[0].model, "judge") == found["judge"]
    assert not hashed
