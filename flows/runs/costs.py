"""What jobs have cost: device seconds in all, for each image, by collection, and in money."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from pipeline.job import KEPT, Status
from pipeline.settings import Settings

COLLECTIONS_SHOWN = 100
OTHERS = "(others)"
"""What stands for the collections beyond that number."""


@dataclass(frozen=True)
class Price:
    """What an hour of a device costs; 0: nobody has said, and no money is shown."""

    per_hour: float = 0.0
    currency: str = ""

    @classmethod
    def of(cls, settings: Settings) -> "Price":
        """The price that the settings name."""
        return cls(settings.gpu_hour_price, settings.currency)

    def money(self, seconds: float | None) -> float | None:
        """What so many device seconds cost."""
        return None if seconds is None else round(seconds * self.per_hour / 3600, 6)


FREE = Price()


@dataclass
class Account:
    """Device seconds, and the jobs that they were spent on."""

    jobs: int = 0
    kept: int = 0
    accepted: int = 0
    device_seconds: float = 0.0

    def add(self, status: Status, device_seconds: float) -> None:
        """One more job has ended."""
        self.jobs += 1
        self.kept += status in KEPT
        self.accepted += status is Status.ACCEPTED
        self.device_seconds += device_seconds

    def figures(self, price: Price) -> dict[str, Any]:
        """Device seconds in all and for each image, and what they cost where there is a price.

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
    """The running account of a run, job by job, in constant memory. For one thread at a time."""

    def __init__(self, price: Price = FREE) -> None:
        self.price, self.total = price, Account()
        self._collections = defaultdict[str, Account](Account)

    def add(self, status: Status, device_seconds: float, collection: str = "") -> None:
        """One more job has ended; equal rows share one. A row that is no job asks no collection."""
        self.total.add(status, device_seconds)
        if status is Status.INVALID:
            return
        full = len(self._collections) >= COLLECTIONS_SHOWN
        known = collection in self._collections or not full
        self._collections[collection if known else OTHERS].add(status, device_seconds)

    def figures(self) -> dict[str, Any]:
        """The figures of all jobs, without the collections."""
        return self.total.figures(self.price)

    def summary(self) -> dict[str, Any]:
        """The figures of all jobs, and where rows ask several collections, under `by_collection`
        those of each; that of rows which ask none has no name.
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
        """The figures in a few words; empty before anything was spent."""
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
