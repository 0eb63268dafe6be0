"""How commands end."""

import signal
import subprocess
import sys

import pytest

STUCK = """
import time
from flows.commands.answers import interruptible
with interruptible("It goes on with: this"):
    try:
        print("here", flush=True)
        time.sleep(60)
    finally:
        print("leaving", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_a_command_at_once_and_it_says_its_line(
    number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    for line in ("here\n", "leaving\n"):
        assert process.stdout.readline() == line
        process.send_signal(number)
    _, said = process.communicate(timeout=5)
    assert (process.returncode, said) == (code, "It goes on with: this\n")
