"""Renderers come when they are asked for, and the one used least recently goes."""

import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.assemble.assembly import Assembly
from pipeline.errors import ModelError, OutOfMemory
from pipeline.job import ImageArray, RenderRequest
from pipeline.models import Models
from pipeline.models.loading import LIMIT, WORKING
from pipeline.ports import Pruner
from pipeline.profile import (
    A1111Profile,
    ControlProfile,
    DiffusersProfile,
    Profile,
    RendererProfile,
)
from pipeline.rendering.pool import ModelRenderer, RendererPool
from pipeline.settings import load_settings
from tests.conftest import Noted
from tests.harness import small_models

A, B, C = (DiffusersProfile(model=name) for name in "abc")
REMOTE = A1111Profile()


class Flat:
    """A renderer without a model."""

    closed = False

    def render(self, request: RenderRequest, pruner: Pruner | None = None) -> Sequence[ImageArray]:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


class Shelf:
    """A loader with room for so many renderers of one byte. `fits` is how many the device really
    holds.
    """

    def __init__(self, room: int, fits: int = 99) -> None:
        self._room, self._fits = room, fits
        self.loaded, self.here = list[str](), set[str]()
        self.most = 0
        self.made = Flat

    def load(self, section: RendererProfile) -> Flat:
        if len(self.here) >= self._fits:
            raise torch.OutOfMemoryError
        self.loaded.append(section.model)
        if self.nbytes(section):
            self.here.add(section.model)
        self.most = max(self.most, len(self.here))
        return self.made()

    def unload(self, section: RendererProfile) -> None:
        self.here.discard(section.model)

    def nbytes(self, section: RendererProfile) -> int:
        return int(section != REMOTE)

    def room(self, held: int) -> float:
        return self._room - held

    def out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, torch.OutOfMemoryError)


def use(pool: RendererPool, *sections: RendererProfile) -> None:
    for section in sections:
        with pool.lent(section):
            pass


@pytest.mark.parametrize("shelf", [Shelf(2), Shelf(9, fits=2)], ids=["by size", "by the device"])
def test_the_one_used_least_recently_makes_room(shelf: Shelf, noted: Noted) -> None:
    pool = RendererPool(shelf)
    with pool.lent(A) as first:
        pass
    use(pool, B, A, REMOTE, A, C)
    assert shelf.here == {"a", "c"}
    assert not first.closed
    use(pool, B, C, A)
    assert shelf.loaded == ["a", "b", "", "c", "b", "a"]
    assert first.closed
    assert noted.renderers == Counter(loaded=6, evicted=3, changed=8)


def test_loading_ahead_is_no_call(noted: Noted) -> None:
    pool = RendererPool(Shelf(2))
    pool.load(A)
    use(pool, B, B, A)
    assert noted.renderers == Counter(loaded=2, changed=1)


def test_one_that_fits_nowhere_is_an_error_and_leaves_nothing_behind() -> None:
    shelf = Shelf(9, fits=0)
    pool = RendererPool(shelf)
    for _ in range(2):
        with pytest.raises(ModelError, match="'a' does not fit the device's memory"), pool.lent(A):
            pass
    assert not shelf.here


def test_one_that_still_lies_in_memory_as_it_is_evicted_makes_room_all_the_same() -> None:
    class Late(Shelf):
        """Frees an evicted model's memory only when asked again."""

        late = ""

        def unload(self, section: RendererProfile) -> None:
            self.here.discard(self.late)
            self.late = section.model

    shelf = Late(9, fits=1)
    use(RendererPool(shelf), A, B)
    assert shelf.loaded == ["a", "b"]


@pytest.mark.parametrize("beside", [True, False])
def test_an_image_that_does_not_fit_beside_other_models_gets_their_memory(beside: bool) -> None:
    class Full(Flat):
        def render(
            self, request: RenderRequest, pruner: Pruner | None = None
        ) -> Sequence[ImageArray]:
            assert pruner
            kept.append(pruner.keep([np.zeros((1, 1, 3), np.float32)] * 2))
            if shelf.here != {"a"} or not beside:
                raise OutOfMemory("not even one")
            return []

    class Once:
        """A pruner that answers once."""

        points = (0.5,)

        def __init__(self) -> None:
            self._answers = iter([[1]])

        def keep(self, previews: Sequence[ImageArray]) -> Sequence[int]:
            return next(self._answers)

    shelf, kept = Shelf(9), list[Sequence[int]]()
    shelf.made = Full
    pool = RendererPool(shelf)
    use(pool, B, A, C)
    both = Profile.load("shapes").model_copy(update={"renderer": A})
    request = RenderRequest(
        prompt="a", negative="", width=32, height=32, steps=2, guidance=1.0, seeds=(1,)
    )
    renderer = ModelRenderer(both, pool)
    if beside:
        assert renderer.render(request, Once()) == []
        assert kept == [[1], [1]]
        assert shelf.loaded == ["b", "a", "c"]
    else:
        for _ in range(2):
            with pytest.raises(OutOfMemory):
                renderer.render(request, Once())
    use(pool, B)
    assert shelf.here == {"a", "b"}


def test_one_in_use_stays_until_its_calls_have_ended_and_takes_no_more() -> None:
    shelf, began, end = Shelf(1), threading.Event(), threading.Event()
    pool = RendererPool(shelf)

    def hold() -> None:
        with pool.lent(A):
            began.set()
            assert end.wait(60)
            assert shelf.here == {"a"}

    with ThreadPoolExecutor(3) as threads:
        holding = threads.submit(hold)
        assert began.wait(60)
        other = threads.submit(use, pool, B)
        time.sleep(0.05)
        again = threads.submit(use, pool, A)
        time.sleep(0.05)
        assert not other.done()
        end.set()
        for future in (holding, other, again):
            future.result(60)
    assert shelf.loaded == ["a", "b", "a"]


def test_many_threads_over_few_places_all_end() -> None:
    shelf = Shelf(2)
    pool = RendererPool(shelf)
    asked = [(A, B, C)[n % 3] for n in range(90)]
    with ThreadPoolExecutor(12) as threads:
        for future in [threads.submit(use, pool, section) for section in asked]:
            future.result(60)
    assert shelf.most == 2


def test_an_error_of_loading_is_raised_and_the_next_call_tries_again() -> None:
    class Broken(Shelf):
        errors = 1

        def load(self, section: RendererProfile) -> Flat:
            if self.errors:
                self.errors -= 1
                raise ModelError("gone")
            return super().load(section)

    pool = RendererPool(Broken(1))
    with pytest.raises(ModelError, match="gone"):
        use(pool, A)
    use(pool, A)


def test_room_is_what_the_device_has_left_and_the_settings_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Models(tmp_path, "cpu", limit=15).room(5) == 10
    assert Models(tmp_path, "cpu").room(LIMIT) == 0
    figures = {"mem_get_info": (60, 100), "memory_reserved": 20, "memory_allocated": 10}
    for name, figure in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, figure=figure: figure)
    assert Models(tmp_path, "cuda:1").room(1000) == 60 + 20 - 10 - WORKING * 100
    assert Models(tmp_path, "cuda:1", limit=15).room(5) == 10


def test_an_evicted_engine_leaves_no_thread_and_no_weights(tmp_path: Path) -> None:
    for name in ("one", "two"):
        small_models.save("sd", tmp_path / name)
    one, two = (DiffusersProfile(model=name) for name in ("one", "two"))
    size = Models(tmp_path, "cpu").nbytes(one)
    assert 0 < size < 1 << 20
    small_models.save_controlnet(small_models.made("sd"), tmp_path / "net")
    edges, lines = (ControlProfile(model="net", preprocessor=each) for each in ("canny", "none"))
    models = Models(tmp_path, "cpu")
    both = models.nbytes(DiffusersProfile(model="one", controls={"edges": edges, "lines": lines}))
    assert both == models.nbytes(DiffusersProfile(model="one", controls={"edges": edges})) > size
    settings = load_settings(
        models=tmp_path, store=str(tmp_path / "out"), home=tmp_path / "home", device="cpu"
    )
    assembly = Assembly(settings)
    assembly.models._limit = size + size // 2
    request = RenderRequest(
        prompt="a", negative="", width=32, height=32, steps=2, guidance=1.0, seeds=(1,)
    )
    before = set(threading.enumerate())
    with assembly.renderers.lent(one) as renderer:
        (image,) = renderer.render(request)
        unet = weakref.ref(assembly.models.diffusion(one).unet)
        parameters = sum(
            p.nbytes for part in assembly.models.diffusion(one).components.values()
            if isinstance(part, torch.nn.Module) for p in part.parameters()
        )  # fmt: skip
    assert parameters <= size < 1.1 * parameters
    extra = (one, "control", "edges")
    assembly.models._once(extra, dict)
    begun = set(threading.enumerate()) - before
    assert {thread.name for thread in begun} == {"engine", "batch-renderer"}
    del renderer
    with assembly.renderers.lent(two):
        # a collection does nothing while one runs in another thread
        deadline = time.monotonic() + 60
        while unet() is not None and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.05)
        assert unet() is None
        assert extra not in assembly.models._loaded
        assert not any(thread.is_alive() for thread in begun)
    with assembly.renderers.lent(one) as renderer:
        (again,) = renderer.render(request)
    assert image is not None
    assert again is not None
    assert np.array_equal(image, again)
