"""Forks that take the place of interpreters of their own run and end as those do."""

from __future__ import annotations

import pytest

CASES = {
    "it ends": "print('said')",
    "with a code": "print('said'); raise SystemExit(3)",
    "with words": "print('said'); raise SystemExit('wrong')",
    "with an error": "print('said'); 1 / 0",
    "by Ctrl-C": "print('said'); raise KeyboardInterrupt",
    "killed": "import os; print('said', flush=True); os.kill(os.getpid(), 9)",
    "what is registered runs": "import atexit; atexit.register(print, 'said')",
    "a thread goes on": """
import threading, time
threading.Thread(target=lambda: (time.sleep(0.1), print('said'))).start()
""",
    "what it is given": """
import os, sys, __main__
print(sys.argv[1:], os.environ['GIVEN'], os.getcwd(), __name__, __main__.__name__)
""",
    "signals": """
import signal
print([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)])
""",
}


@pytest.mark.parametrize("name", CASES)
def test_a_fork_is_an_interpreter(name, forked, shell, tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(CASES[name])
    monkeypatch.chdir(tmp_path)
    words = (tmp_path / "script.py", "a", "b c")
    one, other = (run(*words, environment={"GIVEN": "too"}) for run in (forked, shell))
    assert (one.code, one.out) == (other.code, other.out) and one.out
    assert one.err.splitlines()[-1:] == other.err.splitlines()[-1:]


def test_what_is_imported_already_is_not_imported_again(forked, tmp_path):
    (tmp_path / "script.py").write_text("import sys; print('torch' in sys.modules)")
    assert forked(tmp_path / "script.py").out == "True\n"
