"""A worker process for the supervisor's tests: writes heartbeats and fails in one of the MODES.

Arguments: the mode, and the pipe for heartbeats. It needs neither settings nor services.
"""

import os
import signal
import sys
import time

MODES = ("works", "hangs", "silent", "grows", "ill", "misconfigured", "stubborn", "dies")


def main(mode: str, pipe: int) -> None:
    """Run until SIGTERM, or as long as the mode lets it."""
    assert mode in MODES
    stops = signal.SIG_IGN if mode == "stubborn" else lambda *_: os._exit(0)
    signal.signal(signal.SIGTERM, stops)
    say(pipe, 0, 0)
    if mode == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "misconfigured":
        os._exit(78)
    if mode == "ill":
        say(pipe, 0, 0, "the disk is full")
        os._exit(76)
    ballast = bytearray(b"x") * (60 * 2**20 if mode == "grows" else 1)
    start = time.monotonic()
    while ballast:
        time.sleep(0.05)
        if mode != "silent":
            say(pipe, 2, time.monotonic() - start if mode == "hangs" else 0)


def say(pipe: int, in_flight: int, quiet: float, complaint: str = "") -> None:
    """Write one heartbeat; without a reader this process ends."""
    try:
        os.write(pipe, f"{in_flight} {quiet:.2f} 0 {complaint}\n".encode())
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
