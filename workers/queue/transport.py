"""kombu's Redis transport, with acknowledgements that never take up a place for good."""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis, virtual


class QoS(redis.QoS):
    """What a consumer has taken and not acknowledged."""

    def ack(self, delivery_tag: Any) -> None:
        """Acknowledge a message. Its place is free even where Redis does not hear of it: the
        message comes again later, and finds its job's outcome.
        """
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        finally:
            virtual.QoS.ack(self, delivery_tag)  # type: ignore[no-untyped-call]


class Channel(redis.Channel):
    """A channel with these acknowledgements."""

    QoS = QoS


class Transport(redis.Transport):
    """The transport of redis:// and its like in a worker, after `install`."""

    Channel = Channel


def install() -> None:
    """Have kombu use this transport in this process: an address has no room for another name."""
    for name in ("redis", "rediss"):
        TRANSPORT_ALIASES[name] = f"{__name__}:Transport"
