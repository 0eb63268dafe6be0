"""A proxy before a Redis that loses messages, cuts connections and leaves them half-open."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workers.queue.celery_app import TASK


class FaultyRedis:
    """Loses the next `losses` messages on their way to a worker; `lost` counts them.

    `url` is where it listens. `cut` and `freeze` befall the connections there are; new ones work.
    """

    def __init__(self, upstream: Path, losses: int = 0) -> None:
        self.losses, self.lost, self.url = losses, 0, ""
        self._upstream, self._loop = upstream, asyncio.new_event_loop()
        self._connections = set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]]()
        self._frozen = set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]]()

    def cut(self) -> None:
        """Close every connection."""
        self._loop.call_soon_threadsafe(self._cut)

    def freeze(self) -> None:
        """Leave every connection half-open: nothing comes through any more, nothing is closed."""
        self._loop.call_soon_threadsafe(lambda: self._frozen.update(self._connections))

    def serve(self, ready: threading.Event) -> None:
        """Listen until `stop`."""
        self._stopped = asyncio.Event()
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen(ready))

    def stop(self) -> None:
        """Have `serve` return."""
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _listen(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        ready.set()
        await self._stopped.wait()
        server.close()
        self._cut()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_unix_connection(str(self._upstream))
        except OSError:
            writer.close()
            return
        ends = (writer, back)
        self._connections.add(ends)
        pumps = (self._pump(reader, back, ends, False), self._pump(there, writer, ends, True))
        await asyncio.wait(map(asyncio.ensure_future, pumps), return_when="FIRST_COMPLETED")
        if ends not in self._frozen:
            self._connections.discard(ends)
            for end in ends:
                end.close()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        answers: bool,
    ) -> None:
        with suppress(ConnectionError):
            while data := await source.read(2**16):
                if ends in self._frozen:
                    continue
                if answers and TASK.encode() in data and self.lost < self.losses:
                    self.lost += 1
                    return
                sink.write(data)
                await sink.drain()

    def _cut(self) -> None:
        for ends in self._connections:
            for end in ends:
                end.close()
        self._connections.clear()
        self._frozen.clear()


@contextmanager
def faulty_redis(upstream: Path, losses: int = 0) -> Iterator[FaultyRedis]:
    """The proxy, on a port of its own, in a thread of its own."""
    proxy, ready = FaultyRedis(upstream, losses), threading.Event()
    thread = threading.Thread(target=proxy.serve, args=(ready,), daemon=True)
    thread.start()
    assert ready.wait(10), "the proxy does not start"
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join(10)
