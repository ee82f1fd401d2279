"""The package's own exception."""

from __future__ import annotations

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
