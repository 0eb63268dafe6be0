import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from qdrant_client import QdrantClient

from flows.runs.knowledge import require_collection
from pipeline.errors import ConfigError, InUse, Unavailable
from pipeline.retrieval.client import LOOK_AGAIN, calling, open_client
from pipeline.retrieval.embedders import Embedders
from pipeline.retrieval.lexical import HashedEmbedder
from pipeline.retrieval.schema import create
from pipeline.retrieval.versions import names
from pipeline.settings import load_settings
from tests.conftest import Noted


def test_a_folder_keeps_its_collections(tmp_path: Path) -> None:
    client = open_client("", "", tmp_path / "deep" / "knowledge")
    create(client, "b", Embedders(HashedEmbedder()))
    create(client, "a", Embedders(HashedEmbedder()))
    client.close()
    again = open_client("", "", tmp_path / "deep" / "knowledge")
    assert names(again) == ["a", "b"]
    again.close()


def test_a_folder_in_use(tmp_path: Path) -> None:
    client = open_client("", "", tmp_path)
    with pytest.raises(ConfigError, match="in use by another process"):
        open_client("", "", tmp_path)
    client.close()
    open_client("", "", tmp_path).close()


def test_a_collection_that_a_worker_holds_is_left_to_the_worker(tmp_path: Path) -> None:
    client = open_client("", "", tmp_path / "knowledge")
    require_collection("a", load_settings(home=tmp_path, redis_url="redis://there"))
    with pytest.raises(InUse):
        require_collection("a", load_settings(home=tmp_path))
    client.close()
    with pytest.raises(ConfigError, match="No collection"):
        require_collection("a", load_settings(home=tmp_path, redis_url="redis://there"))


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be opened"):
        open_client("", "", tmp_path / "file")


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
@pytest.mark.parametrize(
    ("status", "error"),
    [(401, ConfigError), (403, ConfigError), (429, Unavailable), (503, Unavailable)],
)
def test_a_server_that_refuses(
    tmp_path: Path, status: int, error: type[Exception], noted: Noted
) -> None:
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"status": {"error": "no"}}).encode())

        def log_message(self, *args: object) -> None:
            del args

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(error) as caught:
            open_client(f"http://127.0.0.1:{server.server_port}", "secret-key", tmp_path)
        server.shutdown()
    assert "secret-key" not in str(caught.value)
    assert noted.troubles == {("qdrant", str(status)): 1}


def test_a_server_that_is_not_there(tmp_path: Path, noted: Noted) -> None:
    with pytest.raises(Unavailable):
        open_client("http://127.0.0.1:1", "", tmp_path)
    assert noted.troubles == {("qdrant", "ConnectError"): 1}


def test_calls_of_a_local_client_take_turns() -> None:
    client = QdrantClient(":memory:")
    other = Thread(target=names, args=[client])
    with calling(client):
        other.start()
        other.join(timeout=0.2)
        assert other.is_alive()
    other.join(timeout=60)
    assert not other.is_alive()


def test_who_holds_a_folder_is_named_with_the_remedy(tmp_path: Path) -> None:
    client = open_client("", "", tmp_path)
    with pytest.raises(InUse) as refused:
        open_client("", "", tmp_path)
    client.close()
    said = f"Process {os.getpid()} holds {tmp_path}; PRESSRUN_QDRANT_URL names the server."
    assert said in str(refused.value)


def test_a_folder_that_another_process_leaves_soon_is_waited_for(tmp_path: Path) -> None:
    client = open_client("", "", tmp_path)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(open_client, "", "", tmp_path, 10.0)
        time.sleep(LOOK_AGAIN)
        client.close()
        second.result().close()
