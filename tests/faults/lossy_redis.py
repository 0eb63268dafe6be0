"""A proxy before a Redis that loses answers which carry a message, as a broken connection does."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workers.app import TASK


class LossyRedis:
    """Loses the first `losses` messages on their way to a worker; `lost` counts them."""

    def __init__(self, upstream: Path, losses: int) -> None:
        self._upstream, self._losses = upstream, losses
        self.lost = 0
        self.url = ""

    async def serve(self, ready: threading.Event) -> None:
        """Listen until cancelled."""
        server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        ready.set()
        async with server:
            await server.serve_forever()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(self._upstream))
        pumps = (self._pump(reader, back, False), self._pump(there, writer, True))
        with suppress(ConnectionError):
            await asyncio.wait(map(asyncio.ensure_future, pumps), return_when="FIRST_COMPLETED")
        for end in (writer, back):
            end.close()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool
    ) -> None:
        while data := await source.read(2**16):
            if answers and TASK.encode() in data and self.lost < self._losses:
                self.lost += 1
                return
            sink.write(data)
            await sink.drain()


@contextmanager
def lossy_redis(upstream: Path, losses: int) -> Iterator[LossyRedis]:
    """The proxy, on a port of its own, in a thread of its own."""
    proxy, ready, loop = LossyRedis(upstream, losses), threading.Event(), asyncio.new_event_loop()
    task = loop.create_task(proxy.serve(ready))

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
