"""Numbers of options are those of files: nothing that Python alone reads as one."""

from __future__ import annotations

import contextlib
import io
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks import run as study_command
from salt_zoo.cli.arguments import Parser

KINDS = {int: "[-+]?[0-9]+", float: r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"}


@given(st.text("0123456789_+.eExn ٣", min_size=1, max_size=6), st.sampled_from([int, float]))
@example("1_000", int)
@example("1_0.5", float)
@example("٣", int)
@example(" 8", int)
def test_an_option_takes_what_a_file_takes(word, kind):
    parser = Parser(prog="p")
    parser.add_subparsers().add_parser("c").add_argument("--number", type=kind)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            found = parser.parse_args(["c", f"--number={word}"]).number
    except SystemExit as ended:
        lines = said.getvalue().splitlines()
        assert ended.code == 2 and lines[0].startswith("error: argument --number: ")
        assert lines[-1].endswith("see p c --help")
        return
    assert re.fullmatch(KINDS[kind], word) and not re.match("[-+]?0[0-9]", word)
    assert found == kind(word)


@pytest.mark.parametrize("option", ["--seeds=1_0", "--nfe=1_0", "--gpus=1_0", "--nfe=٣"])
def test_a_study_is_not_run_with_another_number(option, capsys):
    try:
        code = study_command.main(["quick", "--dry-run", option])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and option[:5] in error
