"""Two hosts on this machine: network namespaces joined by one link, which can be cut."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 30


class NoNamespaces(Exception):
    """This machine lets us make no network namespaces."""


@dataclass
class Host:
    """A network namespace with an address, and its processes."""

    name: str
    address: str
    workdir: Path
    env: dict[str, str] = field(default_factory=dict)
    processes: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, *words: str, log: str) -> None:
        """Start a program there; its output goes to a file in the workdir."""
        with (self.workdir / log).open("a", encoding="utf-8") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *words],
                cwd=self.workdir,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.processes.append(process)

    def run(self, *words: str, limit: float = 240.0) -> "subprocess.CompletedProcess[str]":
        """Run a program of Python's there to its end."""
        return subprocess.run(
            ["ip", "netns", "exec", self.name, sys.executable, *words],
            cwd=self.workdir,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | self.env,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )

    def stop(self) -> None:
        """End all processes with their children, the last one first."""
        for process in reversed(self.processes):
            if process.poll() is None:
                started = psutil.Process(process.pid)
                all_of_it = [started, *started.children(recursive=True)]
                process.terminate()
                for each in psutil.wait_procs(all_of_it, STOP_SECONDS)[1]:
                    each.kill()
                process.wait()


@dataclass
class Pair:
    """The hosts, and the link between them."""

    here: Host
    there: Host

    def cut(self) -> None:
        """Take the link down, without a notice to either side."""
        _ip("-n", self.here.name, "link", "set", "wire", "down")

    def mend(self) -> None:
        """Bring the link up again."""
        _ip("-n", self.here.name, "link", "set", "wire", "up")


@contextmanager
def two_hosts(workdir: Path) -> Iterator[Pair]:
    """Two hosts that reach each other and nothing else. Raises NoNamespaces."""
    names = [f"pressrun-{os.getpid()}-{side}" for side in ("here", "there")]
    hosts = [Host(name, f"10.77.0.{n}", workdir) for n, name in enumerate(names, 1)]
    made = list[str]()
    try:
        for host in hosts:
            _ip("netns", "add", host.name)
            made.append(host.name)
        wire = ("link", "add", "wire", "type", "veth", "peer", "name", "wire")
        _ip("-n", hosts[0].name, *wire, "netns", hosts[1].name)
        for host in hosts:
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "wire")
            for device in ("lo", "wire"):
                _ip("-n", host.name, "link", "set", device, "up")
        yield Pair(*hosts)
    finally:
        for host in reversed(hosts):
            host.stop()
        for name in made:
            _ip("netns", "del", name)


def _ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise NoNamespaces("there is no `ip`") from error
    except subprocess.CalledProcessError as error:
        raise NoNamespaces(error.stderr.strip()) from error
