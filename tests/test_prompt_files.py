"""Prompts from the files that people have."""

import csv
import json
import os

import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from salt_zoo.core.base.errors import ZooError
from salt_zoo.io.prompt_files import read_prompt_file, read_prompts_and_images

#: What `str.splitlines` takes for ends of lines, and an editor does not.
INSIDE = "\u2028\u2029\u0085\v\f\x1c\x1d\x1e"
BOM = b"\xef\xbb\xbf"
LETTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\0\r\n")
PROMPTS = st.lists(
    st.text(st.one_of(LETTERS, st.sampled_from(INSIDE + ' ,;"\t')), min_size=1, max_size=20)
    .map(str.strip)
    .filter(bool),
    min_size=1,
    max_size=5,
)
once = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@once
@given(PROMPTS, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.booleans())
def test_a_prompt_a_line(tmp_path, prompts, end, bom, blank):
    prompts = [f"a {prompt}" for prompt in prompts]
    text = (end * 2 if blank else end).join(prompts) + (end if blank else "")
    (tmp_path / "p.txt").write_bytes(BOM * bom + text.encode())
    assert read_prompt_file(tmp_path / "p.txt") == prompts


@once
@given(PROMPTS, st.sampled_from([",", ";", "\t"]), st.booleans())
def test_tables(tmp_path, prompts, mark, bom):
    rows = [{"id": str(k), "prompt": prompt} for k, prompt in enumerate(prompts)]
    with (tmp_path / "p.csv").open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as f:
        writer = csv.DictWriter(f, ["id", "prompt"], delimiter=mark, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "p.jsonl").write_text("\n".join(lines), "utf-8")
    (tmp_path / "p.json").write_text(json.dumps(rows), "utf-8")
    (tmp_path / "texts.json").write_text(json.dumps({"prompts": prompts}), "utf-8")
    for name in ("p.csv", "p.jsonl", "p.json", "texts.json"):
        assert read_prompt_file(tmp_path / name) == prompts, name


def test_first_frames_beside_prompts(tmp_path):
    table = pandas.DataFrame(
        {"n": [1, 2], "caption": ["x", "y"], "Image_Path": ["a.png", "/b.png"]}
    )
    table.to_parquet(tmp_path / "p.parquet")
    table.to_csv(tmp_path / "p.csv", index=False)
    table.to_json(tmp_path / "p.jsonl", orient="records", lines=True)
    for name in ("p.parquet", "p.csv", "p.jsonl"):
        found = read_prompts_and_images(tmp_path / name)
        assert [(prompt, str(path)) for prompt, path in found] == [
            ("x", str(tmp_path / "a.png")),
            ("y", "/b.png"),
        ], name
        assert found == read_prompts_and_images(tmp_path / name, "caption", "Image_Path")
    for name in ("p.parquet", "p.jsonl"):  # in a csv a number is text
        with pytest.raises(ZooError, match=r"its 'n' is '?1'?, not the path of an image"):
            read_prompts_and_images(tmp_path / name, "caption", "n")
    (tmp_path / "texts.json").write_text('["a cat"]')
    with pytest.raises(ZooError, match="row 1: has no column 'image' or"):
        read_prompts_and_images(tmp_path / "texts.json")


def test_a_column(tmp_path):
    table = pandas.DataFrame({"n": [1, 2], "words": ["a cat", "a dog"], "caption": ["x", "y"]})
    table.to_parquet(tmp_path / "p.parquet")
    table.to_csv(tmp_path / "p.csv", index=False)
    table.to_csv(tmp_path / "p.tsv", index=False, sep="\t")
    table.to_json(tmp_path / "p.jsonl", orient="records", lines=True)
    for name in ("p.parquet", "p.csv", "p.tsv", "p.jsonl"):
        assert read_prompt_file(tmp_path / name) == ["x", "y"]
        assert read_prompt_file(tmp_path / name, "words") == ["a cat", "a dog"]
        with pytest.raises(ZooError, match=r"has no column 'word' but 'n', 'words', 'caption'"):
            read_prompt_file(tmp_path / name, "word")


def test_long_and_many_prompts(tmp_path):
    prompts = ["a " + "very " * 200_000 + "old cat", *(f"a cat {k}" for k in range(5000))]
    (tmp_path / "p.txt").write_text("\n".join(prompts))
    pandas.DataFrame({"prompt": prompts}).to_csv(tmp_path / "p.csv", index=False)
    before = csv.field_size_limit()
    assert read_prompt_file(tmp_path / "p.txt") == prompts
    assert read_prompt_file(tmp_path / "p.csv") == prompts
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.txt", b"\xff\xfea\0", "not a text file in UTF-8"),
        ("p.txt", b"a\0b", "a zero byte"),
        ("p.txt", b" \n\r\n", "holds no prompt"),
        ("p.txt", b'[\n"a cat"\n]', "holds JSON, not a prompt a line"),
        ("p.txt", b'{"prompt": "a cat"}\n{"prompt": "a dog"}', "holds JSON"),
        ("p.txt", b"id,prompt\n1,a cat", "is a table's header"),
        ("p.csv", b"a cat\na dog", "has no column 'prompt' or 'prompt_en'"),
        ("p.csv", b"id,prompt\n1,a cat, asleep", "a prompt with a comma needs quotes"),
        ("p.csv", b"prompt,prompt\na,b", "has the column 'prompt' twice"),
        ("p.csv", b'prompt\n"a cat', "not a complete table"),
        ("p.csv", b"id,prompt\n1,", "row 1: its 'prompt' is '', not a prompt"),
        ("p.csv", b"prompt\n", "holds no prompt"),
        ("p.json", b"[", "incomplete or invalid JSON"),
        ("p.json", b"[" * 100_000, "incomplete or invalid JSON"),
        ("p.json", b"3", "must hold a list of prompts"),
        ("p.json", b"[3]", "row 1: is a int, not a prompt"),
        ("p.jsonl", b'{"prompt": null}', "row 1: its 'prompt' is 'None', not a prompt"),
        ("p.parquet", b"PAR1", "an incomplete or corrupt parquet file"),
    ],
)
def test_what_is_no_prompts(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ZooError) as error:
        read_prompt_file(tmp_path / name)
    text = str(error.value)
    assert words in text and text.startswith(str(tmp_path / name)) and "\n" not in text
    assert len(text) < 400


def test_what_is_not_there(tmp_path):
    for name in ("p.txt", "p.csv", "p.parquet"):
        with pytest.raises(ZooError, match="there is no such file"):
            read_prompt_file(tmp_path / name)
    (tmp_path / "p.txt").mkdir()
    with pytest.raises(ZooError, match="holds no table of prompts"):
        read_prompt_file(tmp_path / "p.txt")
    (tmp_path / "q.txt").write_text("a cat")
    with pytest.raises(ZooError, match="lines of text, which have no column 'prompt'"):
        read_prompt_file(tmp_path / "q.txt", "prompt")


@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.json"])
def test_what_would_never_end_is_not_waited_for(name, tmp_path):
    os.mkfifo(tmp_path / name)  # nobody writes to it
    (tmp_path / f"zero-{name}").symlink_to("/dev/zero")
    for file in (tmp_path / name, tmp_path / f"zero-{name}"):
        with pytest.raises(ZooError, match="no regular file"):
            read_prompt_file(file)
