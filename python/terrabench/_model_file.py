"""Writes the TOML file that describes a Python model to the program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._errors import Error

SENSOR_GUESS = {"VV": "s1", "VH": "s1"}
"""Sensors by the names of their bands, for lists of bands without a sensor."""

_SENTINEL_2 = ("s2-l1c", "s2-l2a")


def by_sensor(bands: Sequence[str] | Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Returns the bands per sensor. A plain list of Sentinel-2 bands counts for both of its levels; VV and VH are
    Sentinel-1.

    Raises:
        Error: if a plain list mixes sensors.
    """
    if isinstance(bands, str):
        raise Error(f"bands: expected a list of names such as ['B04', 'B03', 'B02'], found {bands!r}")
    if isinstance(bands, Mapping):
        found = {sensor: list(names) for sensor, names in bands.items()}
    else:
        names = list(bands)
        radar = [SENSOR_GUESS.get(name) == "s1" for name in names]
        if any(radar) and not all(radar):
            raise Error(
                f"bands: expected bands of one sensor, found {', '.join(names)}\n"
                "  help: give a dictionary, such as {'s1': ['VV', 'VH'], 's2-l2a': ['B04', 'B03', 'B02']}"
            )
        sensors = ["s1"] if names and all(radar) else list(_SENTINEL_2)
        found = {sensor: names for sensor in sensors}
    empty = [sensor for sensor, names in found.items() if not names]
    if empty or not found:
        raise Error(f"bands: expected at least one band{f' of {empty[0]}' if empty else ''}, found none")
    return found


def text(
    *,
    name: str,
    backbone: str,
    size: int | str,
    bands: Mapping[str, Sequence[str]] | None,
    impute: Iterable[Sequence[str]] = (),
    architecture: Mapping[str, Any] | None = None,
) -> str:
    """Returns the contents of the TOML file."""
    lines = [
        f"name = {_value(name)}",
        f"backbone = {_value(backbone)}",
        f"image = {_value(size)}",
    ]
    impute = [list(pair) for pair in impute]
    if impute:
        lines.append(f"impute = {_value(impute)}")
    lines += ["", "[architecture]", 'kind = "process"']
    lines += [f"{key} = {_value(value)}" for key, value in (architecture or {}).items()]
    for sensor, names in (bands or {}).items():
        lines += ["", f"[sensors.{_value(sensor)}]", f"bands = {_value(list(names))}"]
    return "\n".join(lines) + "\n"


def write(folder: Path, **settings: Any) -> Path:
    """Writes the file into a folder and returns its path."""
    path = folder / "model.toml"
    path.write_text(text(**settings), encoding="utf-8")
    return path


def _value(value: Any) -> str:
    """A TOML value. JSON's text, numbers and lists are valid TOML; its escapes of text are too."""
    return json.dumps(value, ensure_ascii=False)
