"""Sentence grammars of what stands beside facts, as data: notes, house rules, passages' titles.

They are written as those of `writer_grammar` and expand its words.
"""

from examples.shapes.training.writer.grammar import Grammar

COMPANY: Grammar = {
    "company": (
        "was founded in {year}", "was founded in {city} in {year} by {person}",
        "employs {n} people", "sells {thing}", "makes {thing} and {thing}",
        "has offices in {city} and {city}", "opened in {year}", "moved to {city} in {year}",
        "delivers {n} {thing} a day", "ships to {n} countries", "was bought for {price}",
        "earned {price} in {year}", "has {n} shops", "is run by {person}",
        "started in {year} with {n} {thing}", "rents {thing} by the day", "repairs {thing}",
        "publishes {n} titles a year", "won a prize in {city}", "teaches {n} students",
        "belongs to {person}", "closes at {n}", "raised {price} for the {word} fund",
        "is {n} kilometres from {city}", "hired {person} in {year}", "exports {thing} to {city}",
    ),
    "company2": (
        "founded in {year}", "run by {person}", "a maker of {thing}", "known in {city}",
        "{n} years old", "which employs {n} people", "which sells {thing}", "with {n} shops",
        "opened in {year}",
    ),
    "note": (
        "{b} {company}.", "{b} {company}.", "{b} {company} and {company}.",
        "{b}, {company2}, {company}.", "in {year} {b} {past}.", "{person} {joined} {b} in {year}.",
        "{the} of {b} {costs}.", "{bs} {that_n} {costs}.", "{b} {company}. It {company}.",
        "{s} {noted}.", "a {item} from {b} costs {price}.", "{b} pays {price} for {n} {thing}.",
        "{n} of the {thing} of {b} are made in {city}.", "{person}, who runs {b}, lives in {city}.",
        "{city} is home to {b}, {kind}.", "{trap}", "{trap}",
    ),
    "past": (
        "lost {n} {thing}", "moved to {city}", "hired {person}", "sold {n} {thing}",
        "opened a shop in {city}",
    ),
    "joined": (
        "joined", "left", "founded", "sold", "bought", "advised", "praised",
    ),
    "the": (
        "the price of a {item}", "the office", "the staff", "the history", "the {word}",
        "the owner",
    ),
    "that_n": (
        "office", "owner", "price list", "{item}", "newest {item}", "{word}", "annual report",
    ),
    "costs": (
        "costs {price}", "is in {city}", "counts {n} people", "goes back to {year}",
        "is well known", "was sold in {year}", "changed in {year}", "is open until {n}",
    ),
    "noted": (
        "was drawn by {person} in {year}", "cost {price}", "may not be stretched",
        "needs clear space around it", "is {n} years old", "is known in {city}",
        "must not be turned or shaded", "was designed in {city}",
    ),
    "trap": (
        "the office of {b} has {c} walls.", "{b} sells {c} {thing}.", "{bs} newest {item} is {c}.",
        "{b} moved to a {size} house in {city}.", "{b} opened a shop at a {c} {item} in {city}.",
        "the {thing} of {b} are {c} since {year}.", "{person} of {b} drives a {c} {item}.",
        "{b} is a {size} company.", "{b} paints its {thing} {c}.",
        "{b} won a {shape} made of gold in {year}.",
        "the {shape} in front of {b} was built in {year}.", "{b} lies {at} of {city}.",
        "{b} rents a {size} hall with a {c} {item}.", "a {c} {item} by {b} costs {price}.",
        "{b} bakes {shape}s from {word}.", "staff of {b} wear {c} and {c}.",
    ),
    "at": (
        "to the left", "to the right", "on the right", "at the bottom", "in the center",
        "at the top",
    ),
}  # fmt: skip

TITLES: Grammar = {
    "fact_title": (
        "{b}: the {m}", "{b}: the {m}", "{b}: {m}", "{b}: the mark", "{b}", "{b} brand book",
        "{b}, {m2}", "{b}: {word}", "{word}: {b}", "the {b} {m}", "{m}s: {b}", "{word}", "{b} {n}",
        "brand book, page {n}", "{b}: {word} and {word}", "{b} - {m}", "{trade}: {b}",
    ),
    "note_title": (
        "{b}: notes", "{b}: notes", "{b}: the company", "{b}: the company", "{b}", "{b}: {word}",
        "{word}: {b}", "{b} press", "{word}", "news of {year}", "{b}, {city}", "about {b}",
        "{b}: {thing} and {thing}", "{b} - history", "{trade}: {b}", "{b} {n}",
    ),
    "guide_title": (
        "house style {n}", "house style", "style guide", "rules", "{word}", "brand book, page {n}",
        "design, {year}", "{word} {n}",
    ),
}  # fmt: skip

GUIDES: Grammar = {
    "guide": (
        "a logo needs clear space around it.", "never stretch a logo.",
        "keep the {m} {n} pixels from the edge.", "on {g} or {g} backgrounds use the {c} version.",
        "{c} is for warnings, {c} for tips.", "{size} pictures need no name.",
        "each {m} is checked by {person}.", "prints cost {price} per {item}.",
        "use {shape}s sparingly.", "in {year} {n} logos were redrawn.", "posters go to {city}.",
        "the {word} of a {m} is its {word}.", "a {shape} suits {thing}, a {shape} suits {thing}.",
        "{g} grounds are for {thing}.", "{person} keeps the files in {city}.",
    ),
}  # fmt: skip
