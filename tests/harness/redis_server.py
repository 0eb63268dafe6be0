"""A Redis that can be killed and restarts from its append-only file."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from flows.stack.redis_server import redis_binary
from workers.queue.celery_app import PRIORITIES, UNACKNOWLEDGED, list_of

START_SECONDS = 60.0


class RedisServer:
    """A process of its own on a unix socket, in a folder of its own."""

    def __init__(self) -> None:
        # a socket's path may be no longer than 107 bytes
        self._folder = Path(tempfile.mkdtemp(prefix="pressrun-faults-"))
        self.socket = self._folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        files = ["--dir", str(self._folder), "--save", "", "--appendonly", "yes"]
        self._process = subprocess.Popen(
            [redis_binary(), "--port", "0", "--unixsocket", str(self.socket), *files],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "Redis ended while it started"
            assert time.monotonic() < deadline, "Redis does not answer"
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def messages(self) -> int:
        """Number of messages that wait or are being executed."""
        client = self.client()
        waiting = sum(client.llen(list_of(priority)) for priority in range(PRIORITIES))
        return waiting + client.hlen(UNACKNOWLEDGED)

    def close(self) -> None:
        """End it and remove its files."""
        self.kill()
        shutil.rmtree(self._folder)

    def client(self) -> "Redis":
        """A client, to look behind the queue."""
        return Redis.from_url(self.url, decode_responses=True)

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except RedisError:
            return False
