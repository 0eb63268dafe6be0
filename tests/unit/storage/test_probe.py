"""The probe: who wins a race, and what then stands."""

import threading

import pytest

from pipeline.errors import StoreError, Unconditional
from pipeline.storage.folder import FolderStore
from pipeline.storage.probe import TRIES, honours_conditions


class Shelf(FolderStore):
    """A store in memory that honours conditions; each subclass breaks one promise."""

    def __init__(self) -> None:
        self.blobs, self.keys_seen = dict[str, bytes](), set[str]()
        self.lock = threading.Lock()

    def put(self, key: str, data: bytes, *, content_type: str, new: bool = False) -> bool:
        with self.lock:
            self.keys_seen.add(key)
            return self.create(key, data)

    def create(self, key: str, data: bytes) -> bool:
        return self.blobs.setdefault(key, data) is data

    def get(self, key: str, most: int = 0) -> bytes:
        return self.blobs[key]

    def delete(self, key: str) -> None:
        self.blobs.pop(key, None)


class Overwriting(Shelf):
    def create(self, key: str, data: bytes) -> bool:
        self.blobs[key] = data
        return True


class Mixing(Overwriting):
    """What it was given at once cannot be read."""

    def get(self, key: str, most: int = 0) -> bytes:
        raise StoreError("the body breaks off")


class Lying(Shelf):
    """One writer is told that it won, but the last one did."""

    def create(self, key: str, data: bytes) -> bool:
        won = key not in self.blobs
        self.blobs[key] = data
        return won


class Careless(Shelf):
    """Looks and writes in two steps: the second one comes in between."""

    def create(self, key: str, data: bytes) -> bool:
        self.races = getattr(self, "races", 0) + 1
        self.blobs.setdefault(key, data)
        return self.races <= 2


class Refusing(Shelf):
    def create(self, key: str, data: bytes) -> bool:
        raise Unconditional


class Broken(Shelf):
    def create(self, key: str, data: bytes) -> bool:
        raise StoreError("down")


class Forgetting(Shelf):
    """The winner's answer is lost, in every race that is not spared."""

    def __init__(self, spared: int) -> None:
        super().__init__()
        self.spared = spared

    def create(self, key: str, data: bytes) -> bool:
        return super().create(key, data) and len(self.keys_seen) >= self.spared


@pytest.mark.parametrize(
    ("store", "honours"),
    [
        (Shelf(), True),
        (Overwriting(), False),
        (Mixing(), False),
        (Lying(), False),
        (Careless(), False),
        (Refusing(), False),
        (Forgetting(spared=2), True),
        (Forgetting(spared=TRIES + 1), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_a_store_where_one_wins_honours_conditions(store: Shelf, honours: bool) -> None:
    assert honours_conditions(store, "runs/a/") is honours
    assert store.blobs == {}
    assert all(key.startswith("runs/a/probe-") for key in store.keys_seen)


def test_every_race_has_a_key_of_its_own() -> None:
    store = Shelf()
    honours_conditions(store, "")
    honours_conditions(store, "")
    assert len(store.keys_seen) == 4


def test_another_failure_is_not_an_answer() -> None:
    with pytest.raises(StoreError, match="down"):
        honours_conditions(Broken(), "")
