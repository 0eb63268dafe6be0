"""Fixtures that start the real services, each once in a test session, and an image."""

import gc
import os
import signal
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import botocore.loaders
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from flows.stack.embedded import private_redis
from pipeline import masking
from pipeline.job import ImageArray
from pipeline.settings import SHIPPED_MODELS
from pipeline.telemetry import Observer, observe
from tests.harness import shared_server

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# there are as many test processes as cores, each with processes of its own: torch's threads would
# wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

# each S3 client reads the SDK's descriptions of services for 0.2 s, and tests make hundreds of them
botocore.loaders.create_loader = cache(botocore.loaders.create_loader)

# a shell ignores Ctrl-C for what it runs in the background, and so would all that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)


# how long an example takes says how busy the machine is
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# collecting imports all that tests need, and finds no garbage in a quarter of its time
gc.disable()


def pytest_collection_finish() -> None:
    """Search for garbage from now on, in what the tests make."""
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Let all test processes share a server."""
    if not hasattr(config, "workerinput"):
        shared_server.offer()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what is shared, and let the end of the process clear everything else away."""
    gc.unfreeze()
    if not hasattr(config, "workerinput"):
        shared_server.end()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell has set for a run of its own must not steer the tests."""
    for name in os.environ:
        if name.startswith("PRESSRUN_") and name != "PRESSRUN_MODELS":
            monkeypatch.delenv(name)
    masking.forget()


@pytest.fixture(scope="session")
def models_root() -> Path:
    """The folder with the small models."""
    return Path(os.environ.get("PRESSRUN_MODELS", SHIPPED_MODELS))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis of the test session's own."""
    with private_redis() as url:
        yield url


@pytest.fixture(scope="session")
def prefect_server() -> str:
    """The API's address of a Prefect server with its UI, one for all test processes."""
    return shared_server.address()


@pytest.fixture
def image() -> ImageArray:
    """An image with every brightness in each channel."""
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    return np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], ramp[::-1, None]), axis=2)


class Noted(Observer):
    """Keeps what the pipeline tells."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, int, int]] = []
        self.known, self.fresh = Counter[str](), Counter[str]()
        self.troubles = Counter[tuple[str, str]]()
        self.renderers = Counter[str]()

    def batch(self, role: str, filled: int, places: int) -> None:
        self.batches.append((role, filled, places))

    def texts(self, role: str, known: int, fresh: int) -> None:
        self.known[role] += known
        self.fresh[role] += fresh

    def renderer(self, event: str) -> None:
        self.renderers[event] += 1

    def trouble(self, service: str, kind: str) -> None:
        self.troubles[service, kind] += 1


@pytest.fixture
def noted() -> Iterator[Noted]:
    """Who watches this process while a test runs."""
    watcher = Noted()
    observe(watcher)
    yield watcher
    observe(Observer())
