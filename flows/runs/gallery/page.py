"""The gallery: one static page per run that needs neither network nor server."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from flows.runs.gallery.items import DIGITS, Card, Chunk, chunk_of
from pipeline.errors import RunError
from pipeline.models import references
from pipeline.profile import profile_of
from pipeline.record import RunSpec, Status
from pipeline.records.manifest import Manifest, counts
from pipeline.records.run_folder import RunFolder

FOLDER = "gallery"
INDEX = f"{FOLDER}/index.html"
CHUNK = 250
"""Rows whose cards are loaded together."""
PAGE = 200
"""Cards shown at a time."""
LARGEST_INLINE = 5000
"""Rows up to which the page itself holds the cards; a larger run has files beside it."""
BINS = 20

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Bar:
    """The winners with a score from `left` up to the next bar: accepted and below the gate."""

    left: float
    passed: int
    below: int


class Gallery:
    """The page of a run, from the cards of its rows in order: `add` them, then `write` the page."""

    def __init__(self, run_folder: RunFolder) -> None:
        self._run_folder = run_folder
        self._rest = list[Card]()
        self._inline = list[Chunk]()
        self._files = list[str]()

    def add(self, cards: Iterable[Card]) -> None:
        """Add the next rows' cards. Those of a large run are written to files beside the page."""
        self._rest += cards
        while len(self._rest) >= CHUNK:
            self._inline.append(chunk_of(self._rest[:CHUNK]))
            self._rest = self._rest[CHUNK:]
        if self._files or len(self._inline) * CHUNK + len(self._rest) > LARGEST_INLINE:
            self._write_chunks()

    def write(self, spec: RunSpec, manifest: Manifest, cost: str = "") -> str:
        """Write the page; returns its address. `cost` is the sentence on costs that it shows."""
        if self._rest:
            self._inline.append(chunk_of(self._rest))
        if self._files:
            self._write_chunks()
        run_folder, page = self._run_folder, _page(spec, manifest, self._inline, cost)
        run_folder.write(INDEX, page.encode(), "text/html; charset=utf-8")
        # an earlier and larger gallery may have left more
        written = {run_folder.key(name) for name in self._files}
        for key in list(run_folder.store.keys(run_folder.key(f"{FOLDER}/data-"))):
            if key not in written:
                run_folder.store.delete(key)
        return run_folder.address(INDEX)

    def _write_chunks(self) -> None:
        for chunk in self._inline:
            number = len(self._files)
            script = f"gallery.take({number},{embedded(chunk)});\n"
            self._files.append(f"{FOLDER}/data-{number}.js")
            self._run_folder.write(
                self._files[-1], script.encode(), "text/javascript; charset=utf-8"
            )
        self._inline = []


def embedded(value: Any) -> Markup:
    """JSON that is safe inside a page or a script."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def histogram(manifest: Manifest) -> list[Bar]:
    """The winners' scores in BINS bins from 0 to 1."""
    passed, below = Counter[int](), Counter[int]()
    for line in manifest.lines("outcome", "score"):
        if (score := line["score"]) is not None:
            counter = passed if line["outcome"] == Status.ACCEPTED else below
            counter[min(int(score * BINS), BINS - 1)] += 1
    return [Bar(bin / BINS, passed[bin], below[bin]) for bin in range(BINS)]


def _page(spec: RunSpec, manifest: Manifest, inline: list[Chunk], cost: str) -> str:
    style, script = _asset("page.css"), _asset("page.js")
    names = [status.value for status in Status]
    bars = histogram(manifest)
    outcomes = (line["outcome"] for line in manifest.lines("outcome"))
    scores = (line["score"] for line in manifest.lines("score"))
    named = dict[str, str]()
    with suppress(RunError):  # a run of another version is shown without its models' names
        named = references(profile_of(spec))
    models = [(role, named.get(role, ""), digest) for role, digest in spec.models.items()]
    facts = {
        "names": names,
        "outcomes": "".join(str(names.index(outcome)) for outcome in outcomes),
        "scores": [None if score is None else round(score, DIGITS) for score in scores],
        "chunk": CHUNK,
        "page": PAGE,
        "chunks": inline,
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        spec=spec,
        cost=cost,
        threshold=spec.profile.get("defaults", {}).get("threshold"),
        profile=json.dumps(spec.profile, indent=2, ensure_ascii=False),
        models=models,
        counts=counts(manifest),
        names=names,
        bars=bars,
        highest=max(1, *(bar.passed + bar.below for bar in bars)),
        facts=embedded(facts),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _asset(name: str) -> Markup:
    """A style sheet or script of ours, included without escaping."""
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _hash(content: str) -> str:
    """The hash by which the page's Content-Security-Policy allows this content."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
