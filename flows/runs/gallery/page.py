"""The gallery: one static page per run that needs neither network nor server."""

import base64
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from flows.runs.gallery.items import DIGITS, OF_MANIFEST, Chunk, chunk_of
from pipeline.job import RunSpec, Status
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


def build_gallery(run_folder: RunFolder, spec: RunSpec, manifest: Manifest, cost: str = "") -> str:
    """Write the page of a run from its manifest and records; returns its address.

    `cost` is the sentence on costs that the page shows.
    """
    files = set[str]()  # keys
    inline = list[Chunk]()
    rest = manifest.lines(*OF_MANIFEST)
    while lines := list(islice(rest, CHUNK)):
        ids = dict.fromkeys(line["job_id"] for line in lines)
        outcomes = {outcome.job_id: outcome for outcome in run_folder.records.outcomes(ids)}
        chunk = chunk_of(lines, outcomes)
        if len(manifest) <= LARGEST_INLINE:
            inline.append(chunk)
            continue
        number = len(files)
        name = f"{FOLDER}/data-{number}.js"
        script = f"gallery.take({number},{embedded(chunk)});\n"
        run_folder.write(name, script.encode(), "text/javascript; charset=utf-8")
        files.add(run_folder.key(name))
    page = _page(spec, manifest, inline, cost)
    run_folder.write(INDEX, page.encode(), "text/html; charset=utf-8")
    # an earlier and larger gallery may have left more
    for key in list(run_folder.store.keys(run_folder.key(f"{FOLDER}/data-"))):
        if key not in files:
            run_folder.store.delete(key)
    return run_folder.address(INDEX)


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
    models = [
        (role, spec.profile.get(role, {}).get("model", ""), digest)
        for role, digest in spec.models.items()
    ]
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
