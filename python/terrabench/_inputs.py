"""Options of the program that describe what a model takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._errors import Error

NO_TIME_LIMIT = 10 * 365 * 24 * 3600
"""Seconds for `--encoder-timeout`: a closed pipe tells the program that this side ended, and debuggers take long."""


def options(
    *,
    name: str | None = None,
    backbone: str | None = None,
    size: Any = None,
    bands: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    impute: Iterable[Sequence[str]] | None = None,
) -> list[str]:
    """Returns the options of the command line.

    Raises:
        Error: if a size, the bands or the substitutes are not what they should be.
    """
    words = ["--encoder-timeout", str(NO_TIME_LIMIT)]
    words += [] if name is None else [f"--name={name}"]
    words += [] if backbone is None else [f"--backbone={backbone}"]
    if size is not None:
        if size != "native" and (not isinstance(size, int) or size < 1):
            raise Error(f'size: expected a number of pixels or "native", found {size!r}')
        words += ["--input-size", str(size)]
    words += _bands(bands)
    for pair in impute or ():
        if isinstance(pair, str) or len(pair) != 2:
            raise Error(f"impute: expected pairs of bands such as ('zeros', 'B10'), found {pair!r}")
        words.append(f"--input-impute={pair[0]}:{pair[1]}")
    return words


def _bands(bands: Sequence[str] | Mapping[str, Sequence[str]] | None) -> list[str]:
    if bands is None:
        return []
    per_sensor = bands.items() if isinstance(bands, Mapping) else [("", bands)]
    words = []
    for sensor, names in per_sensor:
        if isinstance(names, str):
            raise Error(f"bands: expected a list of names such as ['B04', 'B03', 'B02'], found {names!r}")
        listed = ",".join(map(str, names))
        if not listed:
            raise Error(f"bands: expected at least one band{f' of {sensor}' if sensor else ''}, found none")
        words.append(f"--input-bands={f'{sensor}:' if sensor else ''}{listed}")
    if not words:
        raise Error("bands: expected at least one sensor, found none")
    return words
