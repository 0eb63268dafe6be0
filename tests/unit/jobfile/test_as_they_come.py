"""Files as spreadsheets, exporters and other tools write them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import JobFileError
from pipeline.job import BadRow, Job
from pipeline.jobfile.reader import Overrides, read_jobs
from pipeline.records.manifest import SCHEMA


@pytest.mark.parametrize(
    "content",
    [
        '"keywords","id"\n"red circle","a"\n',
        '"keywords";"id"\r\n"red circle";"a"\r\n',
        '\ufeff"keywords"\t"id"\n"red circle"\t"a"\n',
        "sep=;\r\nkeywords;id\r\nred circle;a\r\n",
        '\ufeff"sep=|"\nkeywords|id\nred circle|a\n',
        "keywords,id\n,,\nred circle,a\n , \n,,\n",
        "keywords,id\nred circle,a,\n",
        "keywords,id\nred circle,a,,\n",
        "\n\nkeywords,id\nred circle,a\n",
        ",,\nkeywords,id\nred circle,a\n",
        "# my list, of today\nkeywords,id\nred circle,a\n",
        "Keywords,ID\nred circle,a\n",
        "\ufeff\ufeffKeywords ,Id\nred circle,a\n",
    ],
)
def test_files_as_spreadsheets_write_them_are_read(read, content: str) -> None:
    (job,) = read(content)
    assert isinstance(job, Job)
    assert (job.keywords, job.name) == ("red circle", "a")


def test_a_column_of_numbers_is_no_comment(read) -> None:
    (job,) = read("#,keywords\n1,red circle\n")
    assert job.keywords == "red circle"


def test_what_stands_beyond_the_header_is_not_lost_in_silence(read) -> None:
    (bad,) = read("keywords,id\nred circle,a,,b\n")
    assert "4 fields under 2 columns" in bad.reason


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_headers_of_other_tools(tmp_path: Path, profile, told, suffix: str) -> None:
    table = {
        "Prompt": "red circle",
        "Negative Prompt": "blur",
        "CFG Scale": 7,
        "Seed": 3,
        "NEEDS-CONTEXT": "no",
        "Meta.SKU": "x",
    }
    path = tmp_path / f"jobs{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({name: [value] for name, value in table.items()}), path)
    elif suffix == ".jsonl":
        path.write_text(json.dumps(table))
    else:
        path.write_text(",".join(table) + "\n" + ",".join(map(str, table.values())))
    (job,) = read_jobs(path, profile, Overrides(), told.append)
    assert (job.keywords, job.negative, job.guidance) == ("red circle", "blur", 7)
    assert (job.seed, job.needs_context, job.meta) == (3, False, {"SKU": "x"})
    assert [notice.column for notice in told] == list(table)
    assert told[2].reason == "column 'CFG Scale' read as guidance"


def test_two_columns_that_mean_the_same(read) -> None:
    with pytest.raises(JobFileError, match="columns 'keywords' and 'Prompt' both mean keywords"):
        read("keywords,Prompt\na,b\n")
    good, bad = read('{"keywords": "a"}\n{"keywords": "a", "KEYWORDS": "b"}', ".jsonl")
    assert isinstance(good, Job)
    assert "both mean keywords" in bad.reason


def test_a_header_without_keywords_is_told_back(read) -> None:
    with pytest.raises(JobFileError, match="'SKU', 'Product name', 'Aspect'"):
        read("SKU;Product name;Aspect\n1;2;3\n")


@pytest.mark.parametrize("seed", [-1, "-1", "-1.0"])
def test_seed_minus_one_is_none(read_one, told, seed) -> None:
    assert read_one({"keywords": "a", "seed": seed}) == read_one({"keywords": "a"})
    assert [notice.column for notice in told] == ["seed"]


@pytest.mark.parametrize("seed", [2**32, 1125899906842624, 2**63, 2**64 - 1])
def test_seeds_of_64_bits(read_one, read, tmp_path: Path, profile, seed: int) -> None:
    job = read_one({"keywords": "a", "seed": seed})
    assert (job.seed, job.candidate_seed(0)) == (seed, seed)
    assert 0 <= job.candidate_seed(1) < 2**64
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert read(f"keywords,seed\na,{seed}\n")[0].id == job.id
    path = tmp_path / "seeds.parquet"
    pq.write_table(pa.table({"keywords": ["a"], "seed": pa.array([seed], pa.uint64())}), path)
    assert next(read_jobs(path, profile, Overrides())).id == job.id
    assert pa.array([seed], SCHEMA.field("seed").type).to_pylist() == [seed]


@pytest.mark.parametrize(
    ("values", "field", "wanted"),
    [
        ({"needs_context": True}, "needs_context", True),
        ({"needs_context": False}, "needs_context", False),
        ({"tags": ["a", "b"]}, "tags", ("a", "b")),
        ({"licenses": ["CC0"]}, "licenses", ("CC0",)),
        ({"meta": {"ok": True}}, "meta", {"ok": "true"}),
        ({"threshold": float("nan"), "id": "n"}, "name", "n"),
        ({"meta.description": "long " * 400}, "meta", {"description": ("long " * 400).strip()}),
        ({"meta.description": "水" * 9_000}, "meta", {"description": "水" * 9_000}),
    ],
)
def test_values_as_json_has_them(read_one, values, field: str, wanted) -> None:
    job = read_one({"keywords": "a"} | values)
    assert isinstance(job, Job), job
    assert getattr(job, field) == wanted


@pytest.mark.parametrize("dictionary", [True, False])
def test_values_as_parquet_has_them(tmp_path: Path, profile, dictionary: bool) -> None:
    table = pa.table(
        {
            "keywords": ["a", "b", "c"],
            "needs_context": [False, True, None],
            "tags": [["x", None, "y z"], [], None],
            "licenses": pa.array([["CC0"], None, ["CC0", "MIT"]], pa.large_list(pa.string())),
            "meta.flat": [True, False, None],
            "meta": [{"ok": True, "sku": "m1", "n": 5}, None, {"ok": False, "sku": None}],
        }
    )
    path = tmp_path / "jobs.parquet"
    pq.write_table(table, path, use_dictionary=dictionary)
    first, second, third = read_jobs(path, profile, Overrides())
    assert [row.needs_context for row in (first, second, third)] == [False, True, True]
    assert [row.tags for row in (first, second, third)] == [("x", "y z"), (), ()]
    assert [row.licenses for row in (first, second, third)] == [("CC0",), (), ("CC0", "MIT")]
    assert first.meta == {"flat": "true", "ok": "true", "sku": "m1", "n": "5"}
    assert second.meta == {"flat": "false"}
    assert third.meta == {"ok": "false"}


@pytest.mark.parametrize("name", ["Colour", "meta"])
def test_parquet_columns_of_one_name_are_named(tmp_path: Path, profile, name: str) -> None:
    path = tmp_path / "jobs.parquet"
    twins = [pa.array([{"a": "x"}]), pa.array([{"b": "y"}])] if name == "meta" else [["x"], ["y"]]
    pq.write_table(pa.table([["a"], *twins], names=["keywords", name, name]), path)
    with pytest.raises(JobFileError, match=f"2 columns '{name}'; rename all but one"):
        list(read_jobs(path, profile, Overrides()))


def test_equal_rows_of_json_and_parquet_are_one_job(tmp_path: Path, read_one, profile) -> None:
    row = {"keywords": "a", "needs_context": False, "tags": ["x", "y"], "meta": {"ok": True}}
    path = tmp_path / "jobs.parquet"
    pq.write_table(pa.Table.from_pylist([row]), path)
    (job,) = read_jobs(path, profile, Overrides())
    assert job.id == read_one(row).id


def test_all_of_meta_is_bounded(tmp_path: Path, profile) -> None:
    path = tmp_path / "jobs.parquet"
    wide = {"meta.a": ["x" * 40_000], "meta.b": ["x" * 40_000]}
    pq.write_table(pa.table({"keywords": ["a"], **wide}), path)
    (bad,) = read_jobs(path, profile, Overrides())
    assert isinstance(bad, BadRow)
    assert "longer than 64 KB" in bad.reason


def test_a_long_meta_is_not_put_into_a_text(read_one) -> None:
    bad = read_one({"keywords": "${meta.a}", "meta.a": "x" * 3_000})
    assert "too long to be put in" in bad.reason


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("عيد \u200fسعيد", "عيد سعيد"),
        ("שלום\u200e world", "שלום world"),
        ("paste\ufeffd", "pasted"),
        ("line\u2028sep", "line sep"),
        ("red\x0bcircle", "red circle"),
    ],
)
def test_marks_that_hide_nothing_are_taken_out(read_one, told, text: str, wanted: str) -> None:
    assert read_one({"keywords": text}).keywords == wanted
    assert len(told) == 1


@pytest.mark.parametrize("mark", [*"\u202a\u202b\u202c\u202d\u202e", *"\u2066\u2067\u2068\u2069"])
def test_marks_that_can_hide_text_are_refused(read_one, mark: str) -> None:
    assert "is not allowed" in read_one({"keywords": f"a{mark}b"}).reason


@pytest.mark.parametrize(
    ("keywords", "told_of"),
    [
        ("{2::red|1::blue} circle", "weights"),
        ("{2$$ and $$red|blue} circle", "counts"),
        ("{1-2$$red|blue} circle", "counts"),
        ("__color__ circle", "wildcards"),
        ("red circle --ar 16:9 --v 6", "flags"),
    ],
)
def test_another_tools_templates_are_told_once(read, told, keywords: str, told_of: str) -> None:
    rows = read("keywords\nplain\n" + f"{keywords}\n" * 300)
    assert all(isinstance(row, Job) for row in rows)
    (notice,) = told
    assert (notice.line, notice.column) == (3, "keywords")
    assert told_of in notice.reason
    assert "(300 rows)" in notice.reason


@pytest.mark.parametrize("words", ["{red|blue} ring", "a -- b", "snake_case __init", "std::vector"])
def test_plain_words_cause_no_warning(read, told, words: str) -> None:
    read(f"keywords\n{words}\n")
    assert told == []


@pytest.mark.parametrize(
    ("suffix", "content", "hint"),
    [
        (".txt", "red\n", "first line the name keywords"),
        (".csv.gz", "x", "take .gz off"),
        (".gz", "x", r"jobs\.csv\.gz"),
        (".csv", b"\x1f\x8b\x08", "add .gz to its name"),
        (".xlsx", "PK", "CSV UTF-8"),
        (".xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "protected by a password, or an old .xls"),
        (".xls", b"\xd0\xcf", "as .xlsx, or as CSV UTF-8"),
        (".ods", "x", "from LibreOffice as .xlsx"),
        (".csv", b"PK\x03\x04", "a workbook"),
    ],
)
def test_a_file_of_another_kind_is_one_sentence(read, suffix: str, content, hint: str) -> None:
    with pytest.raises(JobFileError, match=hint):
        read(content, suffix)


def test_a_width_is_told_its_neighbours(read_one) -> None:
    assert "96 or 104" in read_one({"keywords": "a", "width": 100}).reason
