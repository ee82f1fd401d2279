"""The package's own exception."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._records import Records


class Error(Exception):
    """A request that cannot be fulfilled, or a failure of the program `terrabench`.

    The message says where the problem is, what was expected, what was found and what to do. An exception inside
    your model is not an `Error`: it reaches you as it was raised.
    """

    returncode: int | None
    """The program's exit code, negative for a signal; `None` if the program did not fail."""

    log: str
    """What the program wrote to its standard error; empty if it did not run."""

    records: Records | None
    """The records of the cells that finished before the failure; `None` if there was no run."""

    def __init__(
        self, message: str, *, returncode: int | None = None, log: str = "", records: Records | None = None
    ) -> None:
        super().__init__(message)
        self.returncode = returncode
        self.log = log
        self.records = records


def meant(name: str, known: Iterable[str]) -> str:
    """Returns a line of help if a known name is similar, else nothing."""
    similar = difflib.get_close_matches(name, list(known), n=1)
    return f"\n  help: did you mean {similar[0]!r}?" if similar else ""


_ARGUMENTS = {
    "--task": "tasks", "--partition": "partitions", "--protocol": "protocols", "--seed": "seeds", "--data": "data",
    "--demo": "demo=True", "--normalization": "normalization", "--input-bands": "bands", "--input-size": "size",
    "--input-impute": "impute", "--name": "name", "--backbone": "backbone", "--batch-size": "batch_size",
    "--limit": "limit", "--epochs": "epochs", "--threads": "threads", "--out": "results", "--fresh": "fresh=True",
    "--no-cache": "cache=False", "--device": "device",
}  # fmt: skip
"""Arguments of `evaluate` by the option of the program that they become."""

_PASSED = ("--missing-bands", "--channels", "--sensor", "--bands", "--inputs", "--cache-limit", "--verify")
"""Options of the program that `evaluate` takes in its argument `options`."""


def in_python(text: str) -> str:
    """Adds to a message of the program what its options are called here."""
    told = []
    for option in dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)):
        if option in _ARGUMENTS:
            told.append(f"{_ARGUMENTS[option]} for {option}")
        elif option in _PASSED:
            told.append(f"options=[{option!r}, ...] for {option}")
    return f"{text}\n  in Python: {', '.join(told)}" if told else text
