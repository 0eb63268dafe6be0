"""The reaper's last look at a parent that dies during it."""

import os
import subprocess
import sys

import psutil
import pytest

from flows.stack import reaper


def test_a_parent_that_dies_during_a_look_still_has_its_children_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        looks = iter([[psutil.Process(child.pid)], list[psutil.Process]()])
        # alive before and after the first look, and before the second one
        parents = iter([os.getpid()] * 3)
        monkeypatch.setattr(psutil.Process, "children", lambda _: next(looks))
        monkeypatch.setattr(os, "getppid", lambda: next(parents, 1))
        reaper.watch(os.getpid())
        assert not psutil.pid_exists(child.pid)
