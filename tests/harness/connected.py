"""A connected stack for benchmarks: Redis with its log on disk, stand-in workers, the command line.

`python -m tests.harness.connected COUNT` supervises COUNT stand-in workers until SIGTERM.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from flows.stack.embedded import private_redis
from flows.stack.redis_server import redis_binary
from pipeline.settings import load_settings
from tests.harness import stand_in
from workers.processes.lifecycle import Limits
from workers.processes.supervisor import Supervisor
from workers.queue.messages import Queue

ROOT = Path(__file__).parents[2]
START_SECONDS = 300.0
STOP_SECONDS = 60.0

Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Workdir:
    """A folder to work in, and the settings of everything that works there."""

    folder: Path
    settings: dict[str, str]

    @property
    def url(self) -> str:
        """Address of this workdir's Redis."""
        return self.settings.get("PRESSRUN_REDIS_URL", f"unix://{self.folder}/redis.sock")

    def start(self, *words: str, output: Path | None = None) -> Process:
        """Start a command there, without a terminal; its output goes to a file, or nowhere."""
        env = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PRESSRUN_REDIS_URL": self.url,
            **self.settings,
        }
        with (output or Path(os.devnull)).open("ab") as file, self.log.open("ab") as log:
            return subprocess.Popen(
                words, cwd=self.folder, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=log
            )

    @property
    def log(self) -> Path:
        """Standard error of all processes of this workdir."""
        return self.folder / "log"

    def complaints(self) -> str:
        """The end of the log."""
        return self.log.read_text(encoding="utf-8")[-2000:]


def main() -> None:
    """Supervise stand-in workers; the first argument is their number."""
    limits = Limits.of(load_settings())
    devices = ["cpu"] * int(sys.argv[1])
    crew = Supervisor(devices, limits, command=stand_in.COMMAND, parent=os.getppid())
    signal.signal(signal.SIGTERM, lambda *_: crew.stop())
    sys.exit(crew.run())


@contextmanager
def redis(workdir: Workdir) -> Iterator[None]:
    """The Redis of a workdir, with an append-only file on disk."""
    with running(start_redis(workdir)):
        yield


def start_redis(workdir: Workdir) -> Process:
    """Start it, and wait until it has read its append-only file and answers."""
    options = f"--port 0 --unixsocket {workdir.folder}/redis.sock --save --appendonly yes".split()
    words = [redis_binary(), *options, "--dir", str(workdir.folder), "--loglevel", "warning"]
    process = workdir.start(*words)
    await_ready(lambda: _answers(workdir), process, workdir)
    return process


def _answers(workdir: Workdir) -> bool:
    with closing(Redis.from_url(workdir.url)) as client, suppress(RedisError):
        return bool(client.ping())
    return False


@contextmanager
def workers(workdir: Workdir, count: int) -> Iterator[Process]:
    """A supervisor with `count` stand-in workers, all of which answer."""
    words = (sys.executable, "-m", "tests.harness.connected", str(count))
    # the supervisor says there why a worker ends
    with running(workdir.start(*words, output=workdir.log)) as process:
        await_workers(workdir, count, process)
        yield process


@contextmanager
def stand_ins(folder: Path, settings: dict[str, str]) -> Iterator[dict[str, str]]:
    """A private Redis and a stand-in worker; yields the settings of commands that use them."""
    with private_redis() as url:
        workdir = Workdir(folder, settings | {"PRESSRUN_REDIS_URL": url})
        with workers(workdir, 1):
            yield workdir.settings


def await_workers(workdir: Workdir, count: int, process: Process) -> None:
    """Wait until `count` workers answer. Raises RuntimeError after START_SECONDS."""
    queue = Queue.connect(workdir.url)
    await_ready(lambda: len(queue.workers()) >= count, process, workdir)


@contextmanager
def running(process: Process) -> Iterator[Process]:
    """A process that is stopped when the block ends."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_ready(ready: Callable[[], bool], process: Process, workdir: Workdir) -> None:
    """Wait until a process is ready. Raises RuntimeError when it isn't in time."""
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} is not ready:\n{workdir.complaints()}")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
