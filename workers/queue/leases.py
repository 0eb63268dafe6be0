"""Leases: one per job in Redis, with a fencing epoch and a count of tries.

A lease is a hint that saves work: it keeps two workers from the same job, and shows the flow that a
job is in execution. Outcomes are single because of the store's conditional write or, where a store
has none, `Lease.confirm` right before the write. Time decides only when a lease expires; the epoch
decides which worker's write counts.
"""

import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

import structlog
from redis import Redis
from redis.exceptions import RedisError

from pipeline.errors import RunError, Unavailable
from workers.queue.script_buffer import Script, ScriptBuffer

LEASE_SECONDS = 30.0
TRIES = 3
"""Executions of a job that may end in a lost worker or an unforeseen error."""

log = structlog.get_logger(__name__)

# KEYS: lease, cancellation, epoch, tries. ARGV: attempt, milliseconds, job.
# The epoch rises with each holder: a write with an older one comes too late.
_ACQUIRE = """
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('EXISTS', KEYS[2]) == 1 then return false end
local epoch = redis.call('INCR', KEYS[3])
redis.call('SET', KEYS[1], epoch .. ':' .. ARGV[1], 'PX', ARGV[2])
return {epoch, redis.call('HINCRBY', KEYS[4], ARGV[3], 1)}
"""
# KEYS: lease. ARGV: token, milliseconds.
# A lease that is gone (Redis lost it, or it ran out while nobody wanted the job) is taken again.
_KEEP = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
# KEYS: lease, tries, and the stream if an event follows. ARGV: token, job, charged, XADD's rest.
# A lease that has expired is its last holder's to end; one that another worker holds stays.
_END = """
local holder = redis.call('GET', KEYS[1])
if not holder or holder == ARGV[1] then
  redis.call('DEL', KEYS[1])
  if ARGV[3] == '0' then redis.call('HDEL', KEYS[2], ARGV[2]) end
end
if KEYS[3] then redis.call('XADD', KEYS[3], 'MAXLEN', '~', unpack(ARGV, 4)) end
"""


class Fenced(RunError):
    """Another worker took this job over, and its outcome counts."""


@dataclass(frozen=True)
class Lease:
    """The right to execute a job. `tries` counts this execution."""

    run: str
    job: str
    epoch: int
    tries: int
    attempt: str
    leases: "Leases" = field(repr=False)
    begun: float = field(default_factory=time.monotonic, repr=False, compare=False)

    @property
    def token(self) -> str:
        """Value of the lease's key while this lease holds it."""
        return f"{self.epoch}:{self.attempt}"

    @property
    def fresh(self) -> bool:
        """True after a recent renewal: it cannot have expired, unless Redis lost it."""
        return self.leases.is_fresh(self)

    def confirm(self) -> None:
        """Raise Fenced if another worker holds the job, Unavailable if Redis does not answer."""
        if not self.leases.keep(self):
            raise Fenced(f"job {self.job}, epoch {self.epoch}")


class Leases:
    """The leases that this process holds, kept alive by a heartbeat thread."""

    def __init__(self, redis: "Redis", seconds: float) -> None:
        self._redis, self._milliseconds = redis, int(seconds * 1000)
        self._acquire = redis.register_script(_ACQUIRE)
        self._keep = redis.register_script(_KEEP)
        self._end = redis.register_script(_END)
        self._buffer = ScriptBuffer(redis)
        self._renewed = dict[Lease, float]()
        self._lock = threading.Lock()
        threading.Thread(target=self._beat, args=(seconds / 3,), name="leases", daemon=True).start()

    @property
    def held(self) -> tuple[Lease, ...]:
        """The leases that this process holds."""
        with self._lock:
            return tuple(self._renewed)

    def ages(self) -> list[float]:
        """Seconds since each held lease was acquired."""
        now = time.monotonic()
        return [now - lease.begun for lease in self.held]

    def acquire(self, run: str, fingerprint: str, job: str) -> Lease | None:
        """The job's lease; None if another worker has it or the fingerprint was cancelled.

        Raises Unavailable.
        """
        # the time before the request: Redis counts from a later one
        attempt, asked = uuid.uuid4().hex, time.monotonic()
        keys = [
            lease_key(run, job),
            cancel_key(run, fingerprint),
            f"pressrun:{run}:epoch",
            _tries_key(run),
        ]
        answer = self._call(self._acquire, keys, [attempt, self._milliseconds, job])
        if not answer:
            return None
        epoch, tries = cast("list[int]", answer)
        lease = Lease(run, job, epoch, tries, attempt, self)
        with self._lock:
            self._renewed[lease] = asked
        return lease

    def keep(self, lease: Lease) -> bool:
        """Renew a lease; False if another worker has it. Raises Unavailable."""
        asked = time.monotonic()
        keys = [lease_key(lease.run, lease.job)]
        kept = bool(self._call(self._keep, keys, [lease.token, self._milliseconds]))
        with self._lock:
            if kept and lease in self._renewed:
                self._renewed[lease] = asked
        return kept

    def is_fresh(self, lease: Lease) -> bool:
        """True if less than half of a held lease's time has passed since its last renewal."""
        with self._lock:
            renewed = self._renewed.get(lease)
        return renewed is not None and 2000 * (time.monotonic() - renewed) < self._milliseconds

    def end(self, lease: Lease, *, charged: bool = False) -> None:
        """Give a lease back, and reset the job's tries unless this execution is `charged`.

        Raises Unavailable; the lease then expires.
        """
        call = self._drop(lease, charged)
        self._call(self._end, call.keys, call.arguments)

    def end_soon(self, lease: Lease, stream: str, kept: int, event: Mapping[str, str]) -> None:
        """Give a lease back and add an event to a stream of about `kept` entries: in one step, a
        little later. If Redis does not answer then, the lease runs out and the event is lost.
        """
        call = self._drop(lease, charged=False)
        fields = chain.from_iterable(event.items())
        keys, arguments = [*call.keys, stream], [*call.arguments, kept, "*", *fields]
        self._buffer.post(Script(_END, keys, arguments))

    def flush(self, seconds: float) -> None:
        """Wait until all of `end_soon` is done, `seconds` at most."""
        self._buffer.flush(seconds)

    def _drop(self, lease: Lease, charged: bool) -> Script:
        with self._lock:
            self._renewed.pop(lease, None)
        keys = [lease_key(lease.run, lease.job), _tries_key(lease.run)]
        return Script(_END, keys, [lease.token, lease.job, int(charged)])

    def _beat(self, every: float) -> None:
        pause = threading.Event()
        while not pause.wait(every):
            for lease in self.held:
                try:
                    self.keep(lease)
                except Unavailable as error:
                    log.warning("leases cannot be renewed", reason=str(error))
                    break

    def _call(self, script: Any, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        try:
            return script(keys=keys, args=arguments)
        except RedisError as error:
            raise Unavailable(f"Redis: {error}") from error


def leased(redis: "Redis", run: str, jobs: Iterable[str]) -> set[str]:
    """The jobs, of these, that a worker executes now. Raises Unavailable."""
    asked = list(jobs)
    if not asked:
        return set()
    try:
        found = cast("list[str | None]", redis.mget([lease_key(run, job) for job in asked]))
    except RedisError as error:
        raise Unavailable(f"Redis: {error}") from error
    return {job for job, holder in zip(asked, found, strict=True) if holder}


def lease_key(run: str, job: str) -> str:
    """Key of a job's lease."""
    return f"pressrun:{run}:lease:{job}"


def cancel_key(run: str, fingerprint: str) -> str:
    """Key that exists while a fingerprint of a run is cancelled."""
    return f"pressrun:{run}:{fingerprint}:cancelled"


def _tries_key(run: str) -> str:
    return f"pressrun:{run}:tries"
