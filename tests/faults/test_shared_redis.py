"""A Redis that other applications use too."""

import pytest
from celery import Celery
from redis import Redis

from tests.harness.cluster import Cluster
from tests.harness.redis_server import RedisServer
from workers.queue.celery_app import PREFIX
from workers.queue.messages import Queue

pytestmark = pytest.mark.slow


def of_others(redis: "Redis") -> dict[str, object]:
    """Every key that is not ours, with its value."""
    keys = [key for key in redis.keys("*") if not key.startswith(PREFIX)]
    return {key: redis.dump(key) for key in keys}


def test_keys_of_other_applications_are_left_alone(cluster: Cluster, redis: RedisServer) -> None:
    """Another Celery application has a task in work for longer than ours would wait."""
    client = redis.client()
    shop = Celery("shop", broker=redis.url.replace("unix://", "redis+socket://"))
    cluster.start_worker()
    assert shop.control.ping(timeout=0.5) == [], "our worker answers others"
    shop.send_task("shop.sell")
    client.hset("unacked", "tag", f'[{client.rpop("celery")}, "", "celery"]')
    client.zadd("unacked_index", {"tag": 1.0})
    before = of_others(client)
    assert len(Queue.connect(redis.url).workers()) == 1
    with cluster.dispatching():
        pass
    assert of_others(client) == before
    cluster.verify(cluster.rows)


def test_a_redis_user_with_access_to_our_keys_alone_is_enough(
    cluster: Cluster, redis: RedisServer
) -> None:
    rights = "~pressrun:* &* +@all -@admin -@dangerous +info +role"
    redis.client().execute_command("ACL", "SETUSER", "ours", "on", ">word", *rights.split())
    url = redis.url.replace("unix://", "unix://ours:word@")
    worker = cluster.start_worker(PRESSRUN_REDIS_URL=url)
    queue = Queue.connect(url)
    assert len(queue.workers()) == 1
    with cluster.dispatching(queue):
        pass
    assert not worker.has_ended()
    cluster.verify(cluster.rows)
