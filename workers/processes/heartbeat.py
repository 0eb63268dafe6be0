"""How a supervisor shows that it goes round, and who works."""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

EVERY = 1.0


class Heartbeat:
    """The file in the home by which it shows this to others on the machine."""

    def __init__(self, home: Path) -> None:
        self._file = home / "worker.json"
        self._due = 0.0

    def beat(self, alive: int, wanted: int) -> None:
        """Show it, once a second at most. A full disk or a missing folder ends no supervisor."""
        # of the machine, not of the process: a probe compares it
        now = time.monotonic()
        if now >= self._due:
            self._due = now + EVERY
            with suppress(OSError):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                draft = self._file.with_suffix(".new")
                draft.write_text(json.dumps({"at": now, "alive": alive, "wanted": wanted}))
                draft.replace(self._file)

    def end(self) -> None:
        """Show that nobody goes round any more."""
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """The latest beat; empty where there is none that is whole."""
        try:
            beat = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        return beat if isinstance(beat, dict) else {}
