import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from pipeline.assemble.assembly import Assembly
from pipeline.assemble.knowledge import open_embedder
from pipeline.errors import ModelError
from pipeline.job import Job
from pipeline.jobfile.builder import JobBuilder, Overrides
from pipeline.jobfile.rows import RawRow
from pipeline.models import Models
from pipeline.ports import Retriever
from pipeline.profile import (
    A1111Profile,
    CollectionProfile,
    Profile,
    QdrantProfile,
    TemplateWriterProfile,
)
from pipeline.retrieval.client import open_client
from pipeline.retrieval.embedders import Embedders
from pipeline.retrieval.ingest import ingest
from pipeline.retrieval.lexical import HashedEmbedder
from pipeline.retrieval.retriever import QdrantRetriever
from pipeline.settings import load_settings
from pipeline.telemetry import metered
from tests.harness.jobs import make_spec
from tests.harness.libraries import library

WORDS = ["[PAD]", "[UNK]", "viora", "logo", "teal", "circle"]
TEXTS = ["viora logo", "teal", "a teal circle on viora " * 30]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Models:
    """A folder with an untrained encoder of the usual kind, named `encoder`."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(root / "encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(root / "encoder")
    return Models(root, "cpu")


def test_hashed_embeddings_need_no_model(models: Models) -> None:
    assert isinstance(open_embedder("hashed", models), HashedEmbedder)


def test_an_encoder_gives_a_unit_vector_for_each_text(models: Models) -> None:
    encoder = open_embedder("encoder", models)
    vectors = encoder.embed(TEXTS)
    assert encoder.name.startswith("encoder@")
    assert vectors.shape == (3, encoder.size) == (3, 16)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    # whatever shares the pass, padding does not count
    alone = np.concatenate([encoder.embed([text]) for text in TEXTS])
    assert np.abs(vectors - alone).max() < 1e-5
    assert encoder.embed([]).shape == (0, 16)


def test_many_threads_get_their_own(models: Models) -> None:
    encoder = open_embedder("encoder", models)
    texts = [" ".join(WORDS[2 + n % 4 :]) for n in range(40)]
    wanted = [encoder.embed([text])[0] for text in texts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: encoder.embed([text])[0], texts))
    assert np.abs(np.array(found) - np.array(wanted)).max() < 1e-5


def test_what_is_beyond_the_window_is_told(models: Models, tmp_path: Path) -> None:
    encoder, client = open_embedder("encoder", models), QdrantClient(":memory:")
    texts = ["teal " * 64, "teal " * 65, "t" * 300, "logo. " * 40]
    assert [encoder.reads_whole(text) for text in texts] == [True, False, True, False]
    facts = tmp_path / "facts.jsonl"
    facts.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    cut = [ingest(library(client, tmp_path, encoder), facts, "facts").cut for _ in range(2)]
    assert cut == [2, 0]  # nothing is new the second time
    retriever = QdrantRetriever(lambda: client, Embedders(encoder), QdrantProfile())
    said = "the encoder that finds texts read the beginning of the keywords alone"
    for keywords, told in ((texts[0], []), (texts[1], [said])):
        row = {"keywords": keywords, "collection": "facts"}
        job = JobBuilder(Profile.load("shapes"), Overrides()).build(RawRow(1, row))
        assert isinstance(job, Job)
        with metered() as meter:
            retriever.retrieve(job)
        assert meter.notices == told


def test_the_mean_of_the_tokens(models: Models) -> None:
    encoder = open_embedder("encoder", models)
    model = BertModel.from_pretrained(models.folder("encoder", "embedding")).eval()
    with torch.inference_mode():
        states = model(torch.tensor([[2, 3]])).last_hidden_state[0]
    mean = states.mean(0) / states.mean(0).norm()
    assert np.abs(encoder.embed(["viora logo"])[0] - mean.numpy()).max() < 1e-5


def test_a_folder_that_is_no_encoder(models: Models, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        open_embedder(str(tmp_path), models)


def test_a_collection_of_another_tool_has_an_embedding_of_its_own(models, tmp_path: Path) -> None:
    folder = str(models.folder("encoder", "embedding"))
    encoder = open_embedder(folder, models)
    client = open_client("", "", tmp_path / "knowledge")
    client.create_collection("theirs", VectorParams(size=encoder.size, distance=Distance.COSINE))
    vector = encoder.embed(["viora logo"])[0].tolist()
    payload = {"page_content": "A circle."}
    client.upsert("theirs", [PointStruct(id=1, vector=vector, payload=payload)])
    client.close()
    written = CollectionProfile(written_by="langchain", embedding=folder)
    found = _retriever(tmp_path, {"theirs": written}).retrieve(_asked("teal", "theirs"))
    assert [passage.text for passage in found.passages] == ["A circle."]


def _retriever(home: Path, collections: dict[str, CollectionProfile]) -> Retriever:
    """Assembled as for a run that needs few models."""
    shapes = Profile.load("shapes")
    profile = shapes.model_copy(
        update={
            "retrieval": QdrantProfile(collections=collections),
            "writer": TemplateWriterProfile(),
            "renderer": A1111Profile(),
        }
    )
    spec = make_spec(rows=1, shards=1, profile=profile.model_dump(mode="json"), models={})
    settings = load_settings(home=home, store=str(home / "out"), device="cpu")
    return Assembly(settings).ports(spec).retriever


def _asked(keywords: str, collection: str) -> Job:
    row = RawRow(1, {"keywords": keywords, "collection": collection, "references": 0})
    made = JobBuilder(Profile.load("shapes"), Overrides()).build(row)
    assert isinstance(made, Job)
    return made
