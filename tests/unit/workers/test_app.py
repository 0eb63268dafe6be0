"""Messages that the workers' consumer accepts."""

import os
from pathlib import Path

from kombu import Connection, Producer, Queue
from kombu.exceptions import ContentDisallowed

from workers.queue.celery_app import make_app


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_the_queue_is_not_loaded(tmp_path: Path) -> None:
    app, queue, errors = make_app("redis://127.0.0.1:1/0"), Queue("trap"), list[Exception]()
    with Connection("memory://") as connection, connection.channel() as channel:
        consumer = app.amqp.TaskConsumer(
            channel,
            queues=[queue],
            callbacks=[lambda *_: None],
            on_decode_error=lambda message, error: errors.append(error),
        )
        with consumer:
            Producer(channel).publish(Trap(tmp_path / "sprung"), "trap", serializer="pickle")
            connection.drain_events(timeout=2)
    assert [type(error) for error in errors] == [ContentDisallowed]
    assert not (tmp_path / "sprung").exists()
