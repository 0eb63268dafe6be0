"""Real servers for tests, each in a process of its own on a port of its own."""

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from flows.stack.processes import program

START_SECONDS = 120


class ServerMissing(Exception):
    """The program that serves is not installed."""


@dataclass(frozen=True)
class S3Server:
    """An S3 server's address, and the keys it accepts."""

    endpoint: str
    access_key: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """The variables in which the SDK looks for its keys."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def client(self) -> Any:
        """A client of the SDK's own, to look behind the store."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )


@contextmanager
def moto_s3(bucket: str) -> Iterator[S3Server]:
    """moto's server with an empty bucket; it honours If-None-Match."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        found = S3Server(f"http://{host}:{port}", "MOTOTESTKEY", "moto-secret")
        found.client().create_bucket(Bucket=bucket)
        yield found
    finally:
        server.stop()


@contextmanager
def rclone_s3(folder: Path) -> Iterator[S3Server]:
    """`rclone serve s3` over `folder`; each of its subfolders is a bucket. Ignores If-None-Match.

    Raises ServerMissing where rclone is not installed.
    """
    access_key, secret_key = "PRESSRUNTEST", "a-secret-of-the-tests"
    # the file cache beside the data, not in the user's home
    command = [
        *(_program("rclone"), "serve", "s3", str(folder), "--config", ""),
        *("--addr", "127.0.0.1:0", "--auth-key", f"{access_key},{secret_key}"),
        *("--vfs-cache-mode", "writes", "--cache-dir", f"{folder}.cache"),
    ]
    with _serving(command, r"server on \[(http://[^]]+?)/?\]") as endpoint:
        yield S3Server(endpoint, access_key, secret_key)


@contextmanager
def _serving(command: list[str], announcement: str) -> Iterator[str]:
    """Run a server until the block ends; yields the match of the group in `announcement`."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = Queue[str]()
    reader = threading.Thread(target=_drain, args=(process, lines), daemon=True)
    reader.start()
    try:
        yield _announced(lines, announcement)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        reader.join()


def _announced(lines: "Queue[str]", announcement: str) -> str:
    seen = []
    try:
        while line := lines.get(timeout=START_SECONDS):
            if found := re.search(announcement, line):
                return found[1]
            seen.append(line)
    except Empty:
        seen.append(f"nothing more for {START_SECONDS} s")
    raise RuntimeError("the server did not start:\n" + "".join(seen))


def _drain(process: "subprocess.Popen[str]", lines: "Queue[str]") -> None:
    """Read to the end, for a full pipe would stop the server; an empty line is the end."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def _program(name: str) -> str:
    found = program(name)
    if not found:
        raise ServerMissing(name)
    return found
