"""Training conversations for the writer: keywords, style and context in, text and prompt out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from examples.shapes.training.writer.looks import Look, add, describe, look_of, sample_look
from examples.shapes.training.writer.names import brands
from examples.shapes.training.writer.passages import (
    ASKED_BRAND,
    ASKED_LOOK,
    END,
    OTHER_BRAND,
    PASSAGE,
    TITLE,
    Taste,
    fact,
    guide,
    note,
    unmarked,
)
from examples.shapes.training.writer.words import FILLERS, WORLD_WORDS, pick
from examples.shapes.world import POSITIONS, caption

Span = tuple[int, int, bool]
MOST_PASSAGES = 8
_WORLD_WORD = re.compile(rf"\b(?:{'|'.join((*WORLD_WORDS, *POSITIONS))})\b", re.IGNORECASE)
_BRAND_KEYWORDS = (
    *("{b} logo",) * 6, *("{b}",) * 3, "logo of {b}", "the {b} logo", "{b} emblem", "{b} icon",
    "an icon for {b}", "a poster icon for {b}", "poster icon for {b}", "{b} app icon",
    "{b} brand mark", "logo for {b}", "{b}, logo", "new {b} badge", "draw the {b} logo",
    "a picture of the {b} sign", "{b} symbol", "the symbol of {b}", "{b} crest", "the crest of {b}",
    "emblem of {b}", "{b} badge", "{b} mark", "{b} company logo", "{b}'s logo", "logo {b}",
    "sticker with the {b} logo", "{b} logo for a {w}", "{w}: {b} logo", "{w} with the {b} emblem",
)  # fmt: skip
_PLAIN_KEYWORDS = (
    *("{x}",) * 8, "icon of {x}", "{x} icon", "{x}, icon", "logo: {x}", "a picture of {x}",
    "{x} logo", "poster with {x}", "{x} for the {w}", "{x}, flat design", "a sign with {x}",
    "{w}: {x}", "draw {x}", "{x}, {w}", "sticker, {x}",
)  # fmt: skip
_STYLE_FILLERS = (
    "flat",
    "minimal",
    "vector",
    "simple",
    "clean lines",
    "outlined",
    "bold",
    "high quality",
    "modern",
)


@dataclass(frozen=True)
class Conversation:
    """One exchange with its truth; spans are [start, end) in `user` and whether asked for."""

    user: str
    answer: str
    prompt: str
    brand_spans: tuple[Span, ...] = ()
    word_spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Mix:
    """A mix of conversations: their facts, at most or exactly so many, and their kinds."""

    most_brands: int = MOST_PASSAGES
    brands: int | None = None
    only_facts: bool = False

    @property
    def room(self) -> int:
        """Passages at most; short contexts while there are few brands."""
        return MOST_PASSAGES if self.brands else min(MOST_PASSAGES, self.most_brands + 1)


def conversation(rng: np.random.Generator, taste: Taste, mix: Mix) -> Conversation:
    """A random conversation: mostly a brand with its fact, at times without, at times no brand."""
    kind = 0.0 if mix.only_facts else rng.random()
    if kind < 0.72:
        return _with_fact(rng, taste, mix)
    return _without_fact(rng, taste, mix) if kind < 0.79 else _plain(rng, taste, mix)


def _with_fact(rng: np.random.Generator, taste: Taste, mix: Mix) -> Conversation:
    count = mix.brands or _how_many(rng, mix)
    names = brands(rng, count, taste.makers, taste.forbidden)
    look = sample_look(rng)
    passages = _facts(names, look, taste, rng)
    passages += _asides(names, taste, rng, room=mix.room - len(passages))
    rng.shuffle(passages)
    wanted, keywords, style = _asked(names[0], look, rng)
    return _assembled(keywords, style, passages, f"The {names[0]} logo is {wanted}.", wanted, rng)


def _without_fact(rng: np.random.Generator, taste: Taste, mix: Mix) -> Conversation:
    """The asked-for brand's look is nowhere: the prompt names the brand and what the job says."""
    names = brands(rng, _how_many(rng, mix), taste.makers, taste.forbidden)
    passages = [fact(name, sample_look(rng), False, taste, rng) for name in names[1:]]
    passages += _asides(names, taste, rng, room=mix.room - len(passages))
    rng.shuffle(passages)
    nothing = replace(sample_look(rng, two=0), said=frozenset())
    wanted, keywords, style = _asked(names[0], nothing, rng)
    spelled = re.search(re.escape(names[0]), keywords, re.IGNORECASE)
    named = f"{spelled[0] if spelled else names[0]} logo"
    wanted = _renamed(wanted, nothing.scene.things[0].shape, named)
    return _assembled(keywords, style, passages, f"{_capital(wanted)}.", wanted, rng)


def _plain(rng: np.random.Generator, taste: Taste, mix: Mix) -> Conversation:
    """No brand is asked for: all is said by keywords and style, and no passage matters."""
    look = sample_look(rng, plain=True)
    style = ""
    keywords = describe(look, rng, taste.phrasing, bare=bool(rng.random() < 0.5))
    form = rng.random()
    if form < 0.35:
        keywords = caption(look.scene, rng)
        look = look_of(keywords)
    elif form < 0.6:
        keywords = re.sub("^an? ", "", look.prompt) if rng.random() < 0.5 else look.prompt
    if rng.random() < 0.5:
        look, style = _styled(look, rng)
    keywords = _recased(_filled(pick(rng, _PLAIN_KEYWORDS), rng, x=keywords), rng)
    passages: list[str] = []
    if rng.random() < 0.5:
        names = brands(rng, _how_many(rng, mix), taste.makers, taste.forbidden)
        passages = [
            fact(n, sample_look(rng), False, taste, rng) for n in names if rng.random() < 0.6
        ]
        passages += _asides(names, taste, rng, room=mix.room - len(passages), asked=False)
    return _assembled(keywords, style, passages, f"{_capital(look.prompt)}.", look.prompt, rng)


def _how_many(rng: np.random.Generator, mix: Mix) -> int:
    """Brands in a context: half the time few, for short contexts teach as much in less time."""
    most = mix.most_brands if rng.random() < 0.5 else min(3, mix.most_brands)
    return int(rng.integers(1, most + 1))


def _facts(names: Sequence[str], look: Look, taste: Taste, rng: np.random.Generator) -> list[str]:
    """One fact per brand, the first being the one asked for."""
    others = [fact(name, sample_look(rng), False, taste, rng) for name in names[1:]]
    return [fact(names[0], look, True, taste, rng), *others]


def _asides(
    names: Sequence[str], taste: Taste, rng: np.random.Generator, room: int, asked: bool = True
) -> list[str]:
    """Passages without a look: about these brands (the first is `asked` for), another or none."""
    count = min(max(0, room), pick(rng, (0, 0, 0, 1, 1, 2, 3)))
    told = []
    for _ in range(count):
        form = rng.random()
        if form < 0.15:
            told.append(guide(rng))
        elif form < 0.6:
            told.append(note(names[0], asked, taste, rng))
        else:
            other = pick(rng, names[1:]) if len(names) > 1 and form < 0.85 else None
            other = other or brands(rng, 1, taste.makers, taste.forbidden)[0]
            told.append(note(other, False, taste, rng))
    return told


def _asked(brand: str, look: Look, rng: np.random.Generator) -> tuple[str, str, str]:
    """The wanted prompt, the keywords and the style of a job for a brand with this look."""
    keywords = _filled(pick(rng, _BRAND_KEYWORDS), rng, b=brand)
    style = ""
    form = rng.random()
    if form < 0.16:
        look, words = _styled(look, rng, fillers=False)
        front = words in ("small", "large") and rng.random() < 0.5
        link = " " if words[:3] in ("on ", "in ", "at ") and rng.random() < 0.5 else ", "
        keywords = f"{words} {keywords}" if front else keywords + (link + words if words else "")
    elif form < 0.4:
        look, style = _styled(look, rng)
    return look.prompt, _recased(keywords, rng), style


def _styled(look: Look, rng: np.random.Generator, fillers: bool = True) -> tuple[Look, str]:
    """The look with something that a style adds (rarely: changes), and the style's words."""
    extra = sample_look(rng, two=0)
    free = [
        name
        for name in ("size", "position", "background")
        if not look.says(name) or rng.random() < 0.06
    ]
    said = frozenset(name for name in free if rng.random() < 0.6)
    both = add(
        look, replace(extra, said=said & (frozenset({"background"}) if look.is_pair else said))
    )
    words = [pick(rng, _STYLE_FILLERS)] if fillers and rng.random() < 0.35 else []
    if both is None:
        return look, ", ".join(words)
    added = _style_words(replace(extra, said=said & both.said), rng)
    words += added
    rng.shuffle(words)
    return both, ", ".join(words)


def _style_words(extra: Look, rng: np.random.Generator) -> list[str]:
    thing = extra.scene.things[0]
    words = []
    if extra.says("size") and thing.size:
        words.append(thing.size)
    if extra.says("position") and thing.position:
        at = (
            "in"
            if thing.position == "center"
            else "at"
            if thing.position in ("top", "bottom")
            else "on"
        )
        words.append(f"{at} the {thing.position}")
    if extra.says("background"):
        name = extra.scene.background
        article = "an" if name[0] in "aeiou" else "a"
        words.append(
            pick(rng, (f"on {article} {name} background", f"{name} background", f"on {name}"))
        )
    return words


def _assembled(
    keywords: str,
    style: str,
    passages: Sequence[str],
    text: str,
    wanted: str,
    rng: np.random.Generator,
) -> Conversation:
    """The exchange in one of its two forms: the text is to be written, or it is given."""
    head = f"keywords: {keywords}\n" + (f"style: {style}\n" if style else "")
    form = rng.random()
    if form < 0.75 or (form < 0.9 and not passages):
        marked = [f"{PASSAGE}{passage.replace(TITLE, ': ')}{END}" for passage in passages]
        body = "context:\n" + "\n".join(f"- {p}" for p in marked) if passages else ""
        return _spanned((head + body).rstrip("\n"), f"text: {text}\nprompt: {wanted}", wanted)
    texts = [f"{PASSAGE}{passage.rpartition(TITLE)[2]}{END}" for passage in passages]
    given = " ".join(texts) if passages else keywords
    return _spanned(f"{head}text: {given}", f"prompt: {wanted}", wanted)


def _spanned(marked: str, answer: str, wanted: str) -> Conversation:
    """Take the marks out of the user's message and keep where they were."""
    user, marks = unmarked(marked)
    named = [
        (a, b, kind == ASKED_BRAND) for kind, a, b in marks if kind in (ASKED_BRAND, OTHER_BRAND)
    ]
    looks = [(a, b) for kind, a, b in marks if kind == ASKED_LOOK]
    words: list[Span] = []
    for kind, start, end in marks:
        if kind == PASSAGE:
            words += _words(user, start, end, named, looks)
    return Conversation(user, answer, wanted, tuple(named), tuple(words))


def _words(
    user: str, start: int, end: int, named: list[Span], looks: list[tuple[int, int]]
) -> list[Span]:
    """A passage's words of the world after its first brand: earlier ones could be anyone's."""
    brands_here = [(a, b) for a, b, _ in named if start <= a < end]
    if not brands_here:
        return []
    spans = []
    for found in _WORLD_WORD.finditer(user, min(b for _, b in brands_here), end):
        if not any(a <= found.start() < b for a, b in brands_here):
            spans.append((*found.span(), any(a <= found.start() < b for a, b in looks)))
    return spans


def _renamed(wanted: str, shape: str, name: str) -> str:
    renamed = wanted.replace(shape, name, 1)
    article, rest = renamed.split(" ", 1)
    return (
        f"{'an' if rest[0].lower() in 'aeiou' else 'a'} {rest}"
        if article in ("a", "an")
        else renamed
    )


def _filled(form: str, rng: np.random.Generator, **given: str) -> str:
    return form.format(w=pick(rng, FILLERS), **given)


def _recased(keywords: str, rng: np.random.Generator) -> str:
    form = rng.random()
    if form < 0.25:
        return keywords.lower()
    if form < 0.33:
        return keywords.upper()
    return keywords.title() if form < 0.4 else keywords


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
