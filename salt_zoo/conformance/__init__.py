"""Checks of what the library promises of every method, memory and metric, for tests of plugins.

    from salt_zoo.conformance import check_method
    from salt_zoo.plugin.manager import load_zoo

    def test_my_method():
        zoo = load_zoo(["my_plugin.py"])
        check_method("my-method", {"name": "wan", "size": "digits"}, "digits", zoo)

Each trains or generates with real parts on a CPU, and raises an AssertionError that says which
promise is broken. The library's own parts are tested by the same functions.
"""

from salt_zoo.conformance.memory import check_memory
from salt_zoo.conformance.method import check_method
from salt_zoo.conformance.metric import check_metric

__all__ = ["check_memory", "check_method", "check_metric"]
