"""The pages on the library and on studies are true: their code runs, and what they name exists."""

from __future__ import annotations

import importlib
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.runner.arms import check_metrics
from benchmarks.study.hypotheses import check_hypotheses
from benchmarks.study.schema import load_study, runs_of
from salt_zoo.config.run import resolve
from salt_zoo.core.base.errors import ZooError
from salt_zoo.plugin.manager import Zoo, load_zoo

ROOT = Path(__file__).resolve().parents[1]
LIBRARY, STUDIES = ROOT / "salt_zoo" / "README.md", ROOT / "benchmarks" / "README.md"
CONTRIBUTING, CITATION = ROOT / "CONTRIBUTING.md", ROOT / "CITATION.cff"
PAGES = [LIBRARY, STUDIES, CONTRIBUTING]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def fenced(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE)


def tree() -> dict[str, tuple[int, int]]:
    """Every file of `reports` that git would see, with its size and time."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "reports"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    known = {path: path.stat() for path in paths if path.is_file()}
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in known.items()}


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(ROOT)
    before = set(ROOT.glob("[!.]*"))
    yield
    assert set(ROOT.glob("[!.]*")) <= before


def run_blocks(page: Path) -> dict[str, Any]:
    """Run the Python of a page, in order and in one namespace."""
    blocks = fenced(page, "python")
    assert blocks, page
    namespace: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)
    return namespace


@pytest.mark.slow
def test_the_tour_of_the_library_runs(at_root: None, capsys: pytest.CaptureFixture[str]) -> None:
    namespace = run_blocks(LIBRARY)
    assert (namespace["folder"] / "seven.gif").is_file()
    assert (namespace["folder"] / "run" / "run.yaml").is_file()
    assert namespace["trainer"].counter.counts["student"]["backward"] > 0
    assert "[1.0, 0.9375, 0.8333, 0.625]" in capsys.readouterr().out
    namespace["temporary"].cleanup()


def test_the_reading_of_a_report_runs(at_root: None, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree()
    namespace = run_blocks(STUDIES)
    assert tree() == before
    widths = [namespace["half_width"](1.0, 1e-9, seeds, 1000) for seeds in (2, 3, 5, 10)]
    assert [round(width, 1) for width in widths] == [9.0, 2.5, 1.2, 0.7]  # as the page says
    assert "9.0 sd with two seeds, 2.5 with three, 1.2 with five, 0.7 with ten" in " ".join(
        text_of(STUDIES).split()
    )
    assert "sd over seeds" in capsys.readouterr().out


@pytest.fixture(scope="module")
def pages_zoo() -> Zoo:
    return load_zoo()


@pytest.mark.parametrize("page", [LIBRARY, STUDIES], ids=lambda page: page.parent.name)
def test_configurations_resolve(page: Path, pages_zoo: Zoo) -> None:
    for number, block in enumerate(fenced(page, "yaml"), 1):
        content, where = yaml.safe_load(block), f"{page.name}, YAML {number}"
        if "arms" not in content:
            resolve(content, pages_zoo, where)
            continue
        study = load_study(content, where)
        check_metrics(study, pages_zoo, where)
        check_hypotheses(study, pages_zoo, where)
        assert runs_of(study, pages_zoo, where).keys() == content["arms"].keys()


def test_the_page_on_studies_has_studies() -> None:
    assert len(fenced(STUDIES, "yaml")) >= 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_tests_that_a_page_names_exist(page: Path) -> None:
    text = text_of(page)
    for name in re.findall(r"\btests/[\w/]+\.(?:py|yaml)", text):
        assert (ROOT / name).is_file(), name
    for test, name in re.findall(r"`(test_\w+)`\s+in\s+`(tests/[\w/]+\.py)`", text):
        assert re.search(rf"^def {test}\(", text_of(ROOT / name), re.MULTILINE), f"{name}: {test}"
    assert len(re.findall(r"`test_\w+`", text)) == len(
        re.findall(r"`test_\w+`\s+in\s+`tests/", text)
    ), "a test without its file"


def test_links_of_contributing_lead_somewhere() -> None:
    """Those of the other pages are tested in `test_pages.py`."""
    targets = re.findall(r"\]\(([^)#]+)\)", text_of(CONTRIBUTING))
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def found(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(words[:count]))
        except ModuleNotFoundError:
            continue
        for word in words[count:]:
            if not hasattr(thing, word):
                return False
            thing = getattr(thing, word)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_dotted_names_exist(page: Path) -> None:
    names = re.findall(r"`((?:salt_zoo|salt_zoo_\w+|benchmarks)(?:\.\w+)+)`", text_of(page))
    wrong = [name for name in dict.fromkeys(names) if not found(name)]
    assert not wrong


def test_the_check_of_names_finds_a_wrong_one() -> None:
    assert found("salt_zoo.core.flow.step_list") and not found("salt_zoo.core.flow.step_lists")
    assert not found("salt_zoo.core.flows.step_list")


def test_packages_of_the_pages_are_those_of_the_architecture() -> None:
    """The tables of packages are `tests/test_house.py` in words."""
    from tests.test_house import ARROWS

    for page, package in ((LIBRARY, "salt_zoo"), (STUDIES, "benchmarks")):
        section = text_of(page).split("## Packages", 1)[1].split("\n## ", 1)[0]
        rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", section, flags=re.MULTILINE)
        assert {room for room, _ in rows} == ARROWS[package].keys()
        above: set[str] = set()
        for room, words in rows:
            if words == "all of the above":
                named = set(above)
            elif words.startswith("all but "):
                named = above - set(re.findall(r"\w+", words[8:])) - {room}
            else:
                named = set(re.findall(r"\w+", words)) - {"none"}
            assert named == ARROWS[package][room], room
            above.add(room)


def test_citation() -> None:
    cited = yaml.safe_load(text_of(CITATION))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= cited.keys()
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    assert (cited["cff-version"], cited["title"]) == ("1.2.0", "Salt Zoo")
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert cited["authors"] == [{"name": "The Salt Zoo authors"}]
    numbers = []
    for reference in cited["references"]:
        assert {"type", "title", "authors", "year", "identifiers"} <= reference.keys()
        for author in reference["authors"]:
            assert author.keys() in ({"name"}, {"given-names", "family-names"}), author
        (identifier,) = reference["identifiers"]
        number = re.fullmatch(r"arXiv:(\d{4}\.\d{5})", identifier["value"])
        assert identifier["type"] == "other" and number, identifier
        assert reference["url"] == f"https://arxiv.org/abs/{number[1]}"
        assert reference["year"] == 2000 + int(number[1][:2])
        numbers.append(number[1])
    assert len(numbers) == len(set(numbers))


def test_every_paper_that_a_registered_part_names_is_cited(pages_zoo: Zoo) -> None:
    parts = [entry for registry in pages_zoo.registries for entry in registry]
    named = set(re.findall(r"\d{4}\.\d{5}", " ".join(entry.summary for entry in parts)))
    assert named <= set(re.findall(r"arXiv:(\d{4}\.\d{5})", text_of(CITATION)))


def test_contributing_has_the_test_command_of_the_readme() -> None:
    readme = text_of(ROOT / "README.md")
    (command,) = re.findall(r"<!-- test command -->\n```bash\n(.*?)\n```", readme, re.DOTALL)
    assert command in text_of(CONTRIBUTING)


def test_environments_of_tox_that_contributing_names_exist() -> None:
    tox = text_of(ROOT / "tox.ini")
    named = re.findall(r"`tox -e (\w+)`", text_of(CONTRIBUTING))
    assert {"lint", "type", "lowest"} <= set(named)
    for name in named:
        assert f"[testenv:{name}]" in tox or name == "py", name


def test_a_wrong_study_would_be_noticed(pages_zoo: Zoo) -> None:
    content = yaml.safe_load(fenced(STUDIES, "yaml")[0])
    content["hypotheses"][0]["metric"] = "digits-fdd"
    with pytest.raises(ZooError, match="digits-fdd"):
        check_hypotheses(load_study(content, "here"), pages_zoo, "here")
