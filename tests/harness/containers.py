"""Services of docker-compose.yml without an engine: their own command lines, run in a root of their
own with the volumes, secrets and names that the file gives them, on a network of their own.

Their programs are this machine's, not the images'. Needs root, and Linux.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness.deployed import ROOT, compose
from tests.harness.two_hosts import Host, NoNamespaces

BIND = "mount --rbind"


@dataclass
class Engine:
    """Runs services as processes of one network namespace, where each name is an address."""

    workdir: Path
    host: Host
    services: dict[str, dict[str, Any]] = field(default_factory=lambda: compose()["services"])
    started: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)

    def start(self, name: str, env: Mapping[str, str] | None = None) -> None:
        """Start a service; its log is NAME.log in the workdir."""
        words = self._inside(name, self._words(self.services[name]), env)
        self.host.start(*words, log=f"{name}.log")
        self.started[name] = self.host.processes[-1]

    def run(self, name: str, *words: str, env: Mapping[str, str] | None = None) -> str:
        """The output of a service run to its end, as by `docker compose run`. Asserts success."""
        service = self.services[name]
        command = self._words(service | ({"command": list(words)} if words else {}))
        return self._finish(self._inside(name, command, env))

    def check(self, name: str) -> str:
        """Run a service's health check and assert its success."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        words = ["sh", "-c", test[0].replace("$$", "$")] if kind == "CMD-SHELL" else test
        return self._finish(self._inside(name, words, None))

    def ask(self, name: str, words: list[str]) -> str:
        """Output of a command in the service's container."""
        return self._finish(self._inside(name, words, None))

    def _finish(self, words: list[str]) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.host.name, *words],
            cwd=self.workdir, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _words(self, service: dict[str, Any]) -> list[str]:
        entry = service.get("entrypoint", ["pressrun"])
        return [*entry, *service.get("command", [])]

    def _inside(self, name: str, words: list[str], env: Mapping[str, str] | None) -> list[str]:
        """A command line that builds the service's root, enters it and becomes the words."""
        service, root = self.services[name], self.workdir / "roots" / name
        lines = ["set -e", f"mkdir -p {root}", f"mount -t tmpfs none {root}"]
        for path in sorted(Path("/").iterdir()):
            if path.is_symlink():
                lines.append(f"cp -a {path} {root}{path}")
            elif path.is_dir() and path.name != "run":
                lines.append(f"mkdir {root}{path}; {BIND} {path} {root}{path}")
        for source, target in self._mounts(service):
            make = "mkdir -p" if source.is_dir() else "touch"
            lines.append(f"{make} {root}{target}; {BIND} {source} {root}{target}")
        lines.append(f"{BIND} {self.workdir / 'hosts'} {root}/etc/hosts")
        values = self._environment(service) | dict(env or {})
        given = [f"{key}={value}" for key, value in values.items()]
        inside = ["env", "-i", *given, "sh", "-c", 'cd /app && exec "$@"', "sh", *words]
        lines.append(f"exec chroot {root} {shlex.join(inside)}")
        return ["unshare", "--mount", "sh", "-c", "\n".join(lines)]

    def _mounts(self, service: dict[str, Any]) -> Iterator[tuple[Path, str]]:
        yield ROOT, "/app"
        yield self._secrets(service), "/run/secrets"
        for volume in service.get("volumes", []):
            source, target, *_ = _filled(volume).split(":")
            if source.startswith("."):
                yield (ROOT / source).resolve(), target
            else:
                kept = self.workdir / "volumes" / source
                kept.mkdir(parents=True, exist_ok=True)
                yield kept, target

    def _secrets(self, service: dict[str, Any]) -> Path:
        """A folder with the secrets of this service and no other."""
        names = service.get("secrets", [])
        folder = self.workdir / "secrets-of" / "-".join(["of", *names])
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_bytes((self.workdir / "secrets" / name).read_bytes())
        return folder

    def _environment(self, service: dict[str, Any]) -> dict[str, str]:
        paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        base = {"PATH": paths, "PYTHONPATH": "/app", "HOME": "/state", "LANG": "C.UTF-8"}
        given = service.get("environment", {})
        return base | {name: _filled(value) for name, value in given.items()}


@contextmanager
def engine(workdir: Path) -> Iterator[Engine]:
    """An engine whose services end with the block. Raises NoNamespaces."""
    name = f"pressrun-{os.getpid()}-compose"
    host = Host(name, "127.0.0.1", workdir)
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        raise NoNamespaces(made.stderr.strip())
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        names = " ".join(["localhost", *compose()["services"]])
        (workdir / "hosts").write_text(f"127.0.0.1 {names}\n", encoding="utf-8")
        subprocess.run([ROOT / "deploy/compose/secrets.sh", workdir / "secrets"], check=True)
        yield Engine(workdir, host)
    finally:
        host.stop()
        subprocess.run(["ip", "netns", "del", name], check=True)


def _filled(value: str) -> str:
    """A value with the defaults of its variables, as without a .env file."""
    return re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", str(value))
