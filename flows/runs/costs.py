"""The costs of jobs: device seconds in total, per image and by collection, and in money."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from pipeline.record import KEPT, Status
from pipeline.settings import Settings

COLLECTIONS_SHOWN = 100
OTHERS = "(others)"
"""The entry for all collections beyond that number."""


@dataclass(frozen=True)
class Price:
    """The price of a device hour; with 0 no money is shown."""

    per_hour: float = 0.0
    currency: str = ""

    @classmethod
    def of(cls, settings: Settings) -> "Price":
        """The price in the settings."""
        return cls(settings.gpu_hour_price, settings.currency)

    def money(self, seconds: float | None) -> float | None:
        """The price of device seconds; None for None."""
        return None if seconds is None else round(seconds * self.per_hour / 3600, 6)


FREE = Price()


@dataclass
class Account:
    """Device seconds and the jobs that used them."""

    jobs: int = 0
    kept: int = 0
    accepted: int = 0
    device_seconds: float = 0.0

    def add(self, status: Status, device_seconds: float) -> None:
        """Add an ended job."""
        self.jobs += 1
        self.kept += status in KEPT
        self.accepted += status is Status.ACCEPTED
        self.device_seconds += device_seconds

    def figures(self, price: Price) -> dict[str, Any]:
        """Device seconds in total and per image, and their price if there is one.

        An image is kept when it was accepted or is the best below its gate.
        """
        spent = {
            "device_seconds": self.device_seconds,
            "device_seconds_per_kept": _share(self.device_seconds, self.kept),
            "device_seconds_per_accepted": _share(self.device_seconds, self.accepted),
        }
        figures: dict[str, Any] = {
            name: None if seconds is None else round(seconds, 4) for name, seconds in spent.items()
        }
        if price.per_hour:
            for name, seconds in spent.items():
                figures[name.replace("device_seconds", "cost")] = price.money(seconds)
            figures["currency"] = price.currency
        return figures


class Costs:
    """The costs of a run, added job by job in constant memory. Not thread-safe."""

    def __init__(self, price: Price = FREE) -> None:
        self.price, self.total = price, Account()
        self._collections = defaultdict[str, Account](Account)

    def add(self, status: Status, device_seconds: float, collection: str = "") -> None:
        """Add an ended job, once for equal rows. Invalid rows count in no collection."""
        self.total.add(status, device_seconds)
        if status is Status.INVALID:
            return
        full = len(self._collections) >= COLLECTIONS_SHOWN
        known = collection in self._collections or not full
        self._collections[collection if known else OTHERS].add(status, device_seconds)

    def figures(self) -> dict[str, Any]:
        """The figures of all jobs together."""
        return self.total.figures(self.price)

    def summary(self) -> dict[str, Any]:
        """The figures of all jobs and, if they use several collections, of each one under
        `by_collection`. Jobs without a collection are under the empty name.
        """
        table = [
            {
                "collection": name,
                "kept": account.kept,
                "accepted": account.accepted,
                **account.figures(self.price),
            }
            for name, account in sorted(self._collections.items())
        ]
        return self.figures() | ({"by_collection": table} if len(table) > 1 else {})

    def sentence(self) -> str:
        """The figures in a few words; empty if nothing was spent."""
        figures = self.figures()
        if not figures["device_seconds"]:
            return ""
        words = [f"{figures['device_seconds']:,.1f} device seconds"]
        if each := figures["device_seconds_per_kept"]:
            words.append(f"{each:,.3g} for each image kept")
        if self.price.per_hour:
            words.append(f"{figures['cost']:,.2f} {self.price.currency}".strip())
        return ", ".join(words)


def _share(seconds: float, images: int) -> float | None:
    return seconds / images if images else None
