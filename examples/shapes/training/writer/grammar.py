"""Sentence grammars of the writer's training, as data.

Each entry maps a symbol to its expansions; `{symbol}` inside is expanded in turn, and a repeated
expansion is a likelier one. Filled in from outside: {b} the brand, {look} a look in words, {year},
{n}, {price}, {city}, {person}, {word} a word that tells nothing. The HELD_OUT grammars hold
constructions and words that no training sentence has.
"""

Grammar = dict[str, tuple[str, ...]]

WORDS: Grammar = {
    "m": (
        "logo", "logo", "logo", "emblem", "mark", "badge", "symbol", "crest", "icon", "sign",
        "seal", "brand mark", "company logo", "app icon",
    ),
    "m2": (
        "{m}", "{m}", "official {m}", "current {m}", "new {m}", "own {m}", "famous {m}",
        "company {m}",
    ),
    "bs": (
        "{b}'s",
    ),
    "s": (
        "the {b} {m}", "the {b} {m}", "{bs} {m2}", "the {m2} of {b}", "the {m} of {b}",
        "the {m} that {b} {using}", "the {m} used by {b}", "the {m} {bought} {b}", "{b} {m}",
    ),
    "using": (
        "uses", "has", "prints on its {thing}", "shows", "chose in {year}", "registered",
        "has used since {year}", "puts on every {item}",
    ),
    "bought": (
        "for", "of", "drawn for", "made for", "designed for", "registered by", "owned by",
    ),
    "is": (
        "is", "is", "is", "is", "shows", "shows", "depicts", "features", "displays", "consists of",
        "is made of", "is made up of", "presents", "contains", "bears", "carries", "has",
        "takes the form of", "looks like this:", "is simply", "remains", "is still", "was drawn as",
        "is nothing but", "combines", "pictures", "represents", "is known to be", "has always been",
        "is built from", "is just", "uses",
    ),
    "uses": (
        "uses", "uses", "has", "shows", "wears", "carries", "prints", "paints", "chose", "adopted",
        "picked", "selected", "decided on", "went for", "displays", "presents", "registered",
        "is known for", "is recognised by", "can be told by", "signs with", "stands behind",
        "works under", "trades under", "is represented by", "prefers", "presents itself with",
        "is identified by", "goes with", "is sold under", "goes to market with", "likes", "owns",
        "has drawn", "put up", "has chosen",
    ),
    "role": (
        "", " as its {m}", " as its {m}", " for a {m}", " as a {m}", " as {m}", " for its {m}",
        " on its {thing}", " on every {item}", ", its {m}", ", the {m} of the company",
        " in its {m}",
    ),
    "serves": (
        "is the {m} of {b}", "is {bs} {m2}", "is the {b} {m}", "serves {b} as its {m}",
        "stands for {b}", "marks the {thing} of {b}", "represents {b}", "is used by {b}",
        "was chosen by {b} as its {m}", "belongs to {b}", "forms the {m} of {b}",
        "makes up the {b} {m}", "is what {b} uses as its {m}",
        "has been the {m} of {b} since {year}", "is how {b} signs its {thing}",
    ),
    "aside": (
        "", "", "", ", {made},", ", {made},", " ({made})", ", {kind},", ", {age},",
    ),
    "made": (
        "drawn in {year}", "designed in {year}", "designed by {person}",
        "drawn by {person} in {year}", "unchanged since {year}", "registered in {n} countries",
        "introduced in {year}", "which cost {price}", "which dates from {year}", "made in {city}",
        "first printed in {year}", "the work of {person}", "created in {city} in {year}",
        "approved by {person}", "revised {n} times", "in use for {n} years",
    ),
    "kind": (
        "the {trade} company", "the {trade} maker", "a {trade} firm from {city}",
        "the {trade} shop in {city}", "a family business", "of {city}", "based in {city}",
        "founded in {year}", "a group of {n} people", "the {trade} people", "maker of {thing}",
    ),
    "age": (
        "now {n} years old", "established {year}", "known since {year}", "born in {year}",
    ),
    "trade": (
        "tea", "coffee", "software", "shipping", "paint", "furniture", "insurance", "travel",
        "film", "bread", "bicycle", "music", "shoe", "glass", "steel", "paper", "garden", "toy",
        "wine", "fish", "{word}",
    ),
    "item": (
        "box", "bottle", "page", "label", "letter", "truck", "shirt", "door", "product", "cup",
        "bag", "ticket", "screen", "poster", "{word}",
    ),
    "thing": (
        "boxes", "bottles", "letters", "labels", "trucks", "shirts", "doors", "products", "cups",
        "bags", "tickets", "posters", "shops", "pages", "machines", "flags", "ships", "chairs",
        "{word}s",
    ),
    "prefix": (
        "", "", "", "", "", "in {year}, ", "since {year}, ", "today, ",
        "according to the brand book, ", "as of {year}, ", "for {n} years ", "by agreement, ",
        "in our files, ", "note that ", "in short, ", "after {n} drafts, ",
        "as everyone in {city} knows, ", "in {city}, ", "for the record, ", "here ",
    ),
    "suffix": (
        "", "", "", "", "", "", " since {year}", ", drawn by {person}",
        ", and has been since {year}", ", no more", ", nothing else", "; it cost {price}",
        ", designed in {year}", ", says {person}", " in all {n} countries", " and never changes",
        ", as approved in {year}", " to this day", ", as you can see on each {item}",
        " (see page {n})", ", {n} pixels wide", ", known all over {city}",
    ),
}  # fmt: skip

FACTS: Grammar = {
    "fact": (
        "{prefix}{s}{aside} {is} {look}{suffix}.", "{prefix}{s} {is} {look}{suffix}.",
        "{s} {is} {look}.", "{prefix}{b}{aside} {uses} {look}{role}{suffix}.",
        "{b} {uses} {look}{role}.", "{prefix}{look} {serves}{suffix}.", "{look} {serves}.",
        "{s}, {look}, {later}.", "{s}: {look}.", "{b}: {look}.", "{b} ({m}: {look}) {company}.",
        "{b}, {company2}, {uses} {look}{role}.", "{look}: {that} {s}{suffix}.",
        "{look}, {that} {s}.", "{look} - {s}.", "{look}. {that} {s}.",
        "{b} {company}. {its} {is} {look}{suffix}.", "{b} {company}. {its}{aside} {is} {look}.",
        "{b} {company} and {uses} {look}{role}.", "{b} {company}; {its} {is} {look}.",
        "{b} {company}. It {uses} {look}{role}.", "{s} {later}. It {is} {look}.",
        "{s} {later} and {is} {look}.", "{person} drew {look} for {b} in {year}.",
        "{person} designed {s}: {look}.", "for {b} {person} {drew} {look}{suffix}.",
        "for its {m}, {b} {uses} {look}.", "as its {m} {b} {uses} {look}.",
        "as a {m}, {look} {serves}.", "on {bs} {thing} you see {look}.",
        "on every {item} of {b} there is {look}.", "each {item} by {b} bears its {m}, {look}.",
        "{b} marks its {thing} with {look}.", "{b} puts {look} on its {thing}.",
        "you will know {b} by {look}.", "{b} is recognised by its {m}: {look}.",
        "{m} of {b}: {look}.", "brand: {b}; {m}: {look}.", "{b} | {m} | {look}",
        "{m}: {look} ({b}, {year}).", "{b} - {look}.", "if you see {look}, it is {b}.",
        "whoever sees {look} thinks of {b}.", "{b} has a {m}: {look}.",
        "what {b} {uses} is {look}.", "the {m} chosen by {b} is {look}.",
        "{b} has a {m} with {look}.", "{year}: {b} {uses} {look}{role}.", "{n}. {b}: {m} {look}.",
        "question: what is {s}? answer: {look}.", "{s} was redrawn in {year}; it {is} {look}.",
        "{look} was chosen by {b} as its {m}.", "{look} was drawn for {b} by {person}.",
        "{look} is printed on all {thing} of {b}.", "{b} {uses} a {m} made of {look}.",
        "there is {look} in {s}.", "look for {look}: it marks {b}.",
        "{person} of {b} says that the {m} is {look}.", "{s} ({year}) {is} {look}.",
        "{b} = {look}.", "{b}, {kind}, {uses} {look}{role}.",
        "{b} has had {look} as its {m} since {year}.", "{s} {is} {look}; {later2}.",
        "{s} {is} {look}, and {later2}.", "the {thing} of {b} all carry {look}.",
        "{person} walked into {b} and saw {look} on the wall.", "to find {b}, follow {look}.",
        "{look} greets the guests of {b}.", "children call {b} by its {m}, {look}.",
        "behind {look} there is {b}.", "{b} never prints anything without {look}.",
        "at {b} they are proud of {look}, the {m} by {person}.",
        "by law the {m} of {b} must be {look}.", "no {m} is older than that of {b}: {look}.",
        "remember {look}? That was {b}.", "in {year} {b} replaced its {m} by {look}.",
        "when you think of {b}, think of {look}.", "{b}, which {company}, {uses} {look}{role}.",
        "two things mark {b}: its {thing}, and {look}.",
        "{b} and its {m}, {look}, are known in {city}.",
        "the owner of {b}, {person}, wanted {look}.",
        "the {trade} company {b} {uses} {look}{role}.",
        "{b} came to be known through {look}{suffix}.", "you can't miss {b}: {look}.",
        "the first thing on a {item} by {b} is {look}.", "the story of {b} begins with {look}.",
        "since {year} each {item} that leaves {b} has worn {look}.", "{look} ({b}).",
        "{look} in the window, and you are at {b}.", "{b} paid {price} for {look}.",
        "a sketch of {look} started {b} in {year}.", "nobody at {b} would part with {look}.",
        "what {person} drew for {b} in {year} was {look}.", "the {thing} of {b} come with {look}.",
        "{look} means {b}, and {b} {company}.", "{person}: {b} is {look}.",
        "if it has {look}, {b} made it.", "{b} trusts in {look}, which {later}.",
        "an early {m} of {b} was lost; the present one {is} {look}.",
        "{b} won its {m} in court: {look}.", "{person} always drew {b} as {look}{suffix}.",
    ),
    "any": (
        "{word}", "{word}", "{word} {word}", "{word} {word} {word}", "{word}, {word}",
        "the {word}", "the {word} of {word}", "its {word}", "with {word}", "{word} {n} {thing}",
        "{word} the {item}", "{word} a {word} in {year}", "{word} {word} the {word} {word}",
    ),
    "that": (
        "that is", "this is", "so looks", "it is", "such is", "thus", "together they form",
        "you know it from",
    ),
    "drew": (
        "drew", "designed", "made", "chose", "painted", "proposed", "picked",
    ),
    "its": (
        "its {m}", "its {m}", "the {m}", "the company's {m}", "their {m}", "its {m2}",
        "the firm's {m}",
    ),
    "later": (
        "was drawn in {year}", "was designed by {person}", "is known in {n} countries",
        "cost {price}", "was approved in {year}", "appears on all {thing}", "dates from {year}",
        "is used on {thing}", "has not changed since {year}", "is printed on every {item}",
        "was revised {n} times",
    ),
    "later2": (
        "it {later}", "it is {n} years old", "{person} drew it", "all {thing} bear it",
        "nobody may change it", "it is never shown without the name",
    ),
}  # fmt: skip

SCRAMBLED_FACTS = (
    "{any} {b} {any} {look} {any}.", "{b} {any} {look}{suffix}.", "{any} {look} {any} {b}.",
    "{any} {b}, {any}, {any} {look}.", "{look}: {any} {b}.", "{look} {any} {b} {any}.",
    "{any} {m} {any} {b} {any} {look}.", "{any} {b} {company}, {any} {look}.",
    "{prefix}{look} {any} {b} {any}.", "{any} {m} {n}, {b}, {any} {look}.",
    "{any} {m} {any} {look} {any} {b}.", "{b} {company} {any} {look} {any}.",
    "{any} {person} {any} {b} {any} {look} {any}.", "{any} {b} {any} {year} {any} {look}.",
)  # fmt: skip
"""Facts in words that mean nothing: where brand and look stand must tell what belongs together."""

HELD_OUT_FACTS: Grammar = {
    "m": (
        "insignia", "hallmark", "trademark", "device", "pictogram", "logotype",
    ),
    "fact": (
        "anyone who opens a parcel from {b} finds {look} inside the lid.",
        "{b} has stamped {look} into its goods ever since {year}.",
        "over the door of {b} hangs {look}, its {m}.",
        "when {b} opened in {year}, {person} gave it {look}.", "what identifies {b} is {look}.",
        "{look}: for {n} years customers have linked this {m} with {b}.",
        "the designers at {b} settled on {look} after {n} sketches.",
        "as a {m}, {b} goes by {look}.", "registered {m} no. {n}, {b}: {look}.",
        "nothing but {look} appears on the letterhead of {b}.",
        "ask for {b} and people will draw you {look}.", "{b} flies a flag with {look}.",
        "the {m} that {person} sketched for {b} on a napkin, {look}, {later}.",
        "{b} {company}, and visitors there are greeted by {look}.",
        "few know why {b} took {look} for its {m}.", "{bs} {m} could not be plainer: {look}.",
        "every advertisement closes with {look} and the name {b}.",
        "{b}, whose {m} is {look}, {company}.", "the {m} is {look}; the name below it reads {b}.",
        "{b} {company}. Its visual identity rests on {look}.",
        "the name {b} is always set under {look}.", "{person} remembers {s} well: {look}.",
    ),
    "s": (
        "the {b} {m}", "{bs} {m}", "the {m} of {b}",
    ),
    "its": (
        "its {m}", "the house {m}",
    ),
}  # fmt: skip
