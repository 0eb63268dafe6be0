"""The plain and the invented words that training conversations are made of."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from examples.shapes.world import BACKGROUNDS, COLOURS, SHAPES, SIZES

T = TypeVar("T")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORLD_WORDS = tuple(dict.fromkeys((*SHAPES, *COLOURS, *BACKGROUNDS, *SIZES)))
ADJECTIVES = _words(
    """
    amber ancient bold brave bright broad calm clear clever common cool crisp dark deep distant
    dry early eastern even fair fine first free fresh gentle glad golden good grand great happy
    hidden high hollow humble idle inner iron kind last late light lone lucky merry mild modern
    narrow new noble northern novel odd old open plain polar prime proud pure quick quiet rapid
    rare royal rural salty second shy silent silver simple single slow smart soft solid southern
    steady still strong sunny super sweet swift tall third tidy tiny true urban vast velvet warm
    western wide wild wise young
    """
)
NOUNS = _words(
    """
    acorn anchor ant apple arbor arch arrow ash badger bank barn basin bay beacon bear bell
    berry birch bird bloom board boat bridge brook candle canyon castle cedar cliff cloud clover
    coast comet copper coral cove crane creek crow crown dale dawn deer desk dove drum dune
    eagle echo elm ember falcon farm feather fern field finch fire fish flint flute forge forest
    fort fox frost gale garden gate glade glass grove gull hare harbor haven hawk hazel heron
    hill hive horizon horse hound ice island ivy jade jay key kite lake lamp lantern lark leaf
    ledge lily lime linen lion lynx maple marble marsh meadow mill mint mist moon moor moss moth
    nest north oak ocean olive orchard otter owl palm paper path peach pearl pebble pepper pier
    pilot pine plum pond port prairie quarry quartz quill rabbit rain raven reed reef ridge
    river robin rock rook root rose sail salt sand shell shore silk sky snow spark spring spruce
    stone storm stream summit sun swan thistle thorn thunder tide tiger timber tower trail tulip
    valley vine violet wagon walnut water wave wheel whale willow wind wing winter wolf wood
    wren yard zephyr
    """
)
SUFFIXES = _words(
    """
    Airlines Analytics Apparel Architects Audio Bakery Bank Bikes Books Brewing Bureau Café
    Capital Care Club Coffee Collective Company Consulting Co Cycles Dairy Dental Design Digital
    Dynamics Energy Engineering Farms Films Foods Foundation Furniture Games Gardens Glass Goods
    Group Guild Holdings Hotels Inc Industries Institute Interiors Journal Kitchen Labs Law
    Library Logistics Ltd Machines Magazine Market Media Medical Mills Mobility Motors Museum
    Music Networks Optics Paints Partners Pharma Images Post Press Productions Properties
    Publishing Radio Rail Records Research Robotics School Security Shipping Shoes Software
    Solar Sports Steel Studio Supply Surf Systems Tea Tech Textiles Theatre Tools Tours Toys
    Trading Transport Travel Ventures Watches Wines Works Yachts
    """
)
SURNAMES = _words(
    """
    Abbott Adler Almeida Baker Barnes Becker Bishop Boyd Brandt Brennan Carver Castillo Chan
    Clarke Costa Crane Dalton Dietrich Dixon Doyle Dubois Eriksen Fischer Fleming Fontaine
    Foster Gallagher Garcia Gibson Grant Haas Hale Hansen Harper Hoffman Holt Hughes Ivanov
    Jansen Jensen Kapoor Keller Kim Kowalski Laurent Lenz Lopez Madsen Marino Marsh Mendes Meyer
    Miller Moreau Morgan Mueller Nakamura Nolan Novak Okafor Olsen Ortega Osborne Park Patel
    Pereira Quinn Reyes Rossi Sato Schmidt Silva Singh Stein Suzuki Tanaka Thorne Tran Turner
    Vargas Vogel Wagner Walsh Weber Wells Yang Zimmer
    """
)
FIRST_NAMES = _words(
    """
    Ada Aisha Alan Amara Anna Arthur Bela Bruno Carla Chen Clara Daniel David Elena Emil Erik
    Eva Felix Grace Hana Hugo Ida Ines Ivan James Jonas Julia Kenji Klara Laila Leo Lena Lucia
    Luis Maria Marta Max Mei Mila Nadia Nina Noah Olga Omar Oscar Paul Petra Priya Rosa Ruth
    Samir Sara Sofia Stella Theo Tomas Uma Vera Victor Yusuf Zoe
    """
)
CITIES = _words(
    """
    Accra Athens Austin Basel Bergen Berlin Boston Brno Cairo Chicago Cork Delhi Denver Dublin
    Essen Genoa Hanoi Hamburg Helsinki Jakarta Kyoto Lagos Leeds Leipzig Lima Lisbon London Lyon
    Madrid Malmö Milan Montreal Nairobi Naples Oslo Paris Perth Prague Quito Riga Rome Salzburg
    Seattle Seoul Seville Sydney Tallinn Tokyo Toronto Turin Utrecht Vienna Warsaw York Zürich
    """
)
FILLERS = _words(
    """
    about after again agency almost along already always among annual answer area around arrive
    artist ask away back balance became been before begin believe below board body book borrow
    bring build busy call campaign can care carefully catalogue catch cause certain change
    chapter children city claim clean client close clothes collect come common company consider
    contain continue cost could country couple cover create customer daily deal decide deliver
    department describe detail different document dozen draw during each easily edge editor
    effort either else employ enough entire especially even every evidence exactly except
    explain extra face fact fairly family famous feel festival few figure final find follow
    forward friend from front gather general generation gives goods guest guide hand happen
    hardly have help here history hold home house however idea important include indeed industry
    inside instead interest into invite item join journey just keep kitchen know label largely
    later lately learn least leave less letter library like line list local long made main make
    many maybe meaning measure meeting member merely message method might minute moment month
    morning most mostly much music must name near nearly need neighbour never news night none
    noted number offer office often once only order origin other our outside over own package
    page paint part people perhaps period person photo piece place plan play poster present
    price print probably produce product proper public publish pull quite rather reader ready
    reason recent record remain report rest result return road rule said same say season section
    see seem sell serve several sheet shelf shop should side sign since sketch slogan some
    sometimes soon special staff stage stay step store story street such suppose surely system
    table take talk team tell than thank their them then there these they thing think this those
    though thousand through ticket time together told town trade train travel tried truly turn
    uncle until usual value very village visit visitor wait walk wall want watch week well went
    were what when where whether which while whole window winter with within without wonder word
    work world would write year yesterday
    """
)


_ONSETS = (
    *"bcdfghjklmnpqrstvwxyz", "br", "ch", "cl", "cr", "dr", "fl", "fr", "gl", "gr", "kl", "kr",
    "ph", "pl", "pr", "qu", "sc", "sh", "sk", "sl", "sm", "sn", "sp", "st", "str", "sw", "th", "tr",
    "ts", "tw", "vl", "wh", "zh", "",
)  # fmt: skip
_VOWELS = (
    *"aeiou" * 3, "y", "ai", "au", "ea", "ee", "ei", "eo", "ia", "ie", "io", "oa", "oo", "ou", "ue",
)  # fmt: skip
_CODAS = (
    *[""] * 14, *"bdfgklmnprstvxz" * 2, "ck", "ft", "ld", "lk", "ll", "lt", "mp", "nd", "ng", "nk",
    "nn", "nt", "rd", "rk", "rm", "rn", "rst", "rt", "sh", "sk", "ss", "st", "th", "tt",
)  # fmt: skip


def pick(rng: np.random.Generator, values: Sequence[T]) -> T:
    """One of the values, all equally likely."""
    return values[int(rng.random() * len(values))]


def word(rng: np.random.Generator, low: int = 1, high: int = 4) -> str:
    """An invented word of `low` to `high - 1` syllables, small letters; half are easy to say."""
    syllables = int(rng.integers(low, high))
    easy = rng.random() < 0.6
    onsets, codas = (_ONSETS[:21], ("",)) if easy else (_ONSETS, _CODAS)
    made = "".join(
        pick(rng, onsets) + pick(rng, _VOWELS) + pick(rng, codas) for _ in range(syllables)
    )
    made += pick(rng, _CODAS) if easy else ""
    return made if len(made) > 2 else made + pick(rng, onsets) + pick(rng, _VOWELS)


def any_word(rng: np.random.Generator) -> str:
    """A filler or an invented word: what may stand wherever a word tells nothing."""
    return pick(rng, FILLERS) if rng.random() < 0.6 else word(rng)
