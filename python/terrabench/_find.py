"""Finds the program `terrabench`, which does the work behind this package."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from ._errors import Error

VARIABLE = "TERRABENCH"
"""The environment variable that names the program."""

_NAME = "terrabench.exe" if os.name == "nt" else "terrabench"


def program() -> Path:
    """Returns the path of the program.

    Looks in this order: the file named by the environment variable `TERRABENCH`; beside this Python's scripts, where
    a wheel puts it; the folders of `PATH`; `target/release/` if this package lies in a checkout.

    Raises:
        Error: if there is no program. The message lists where it was looked for.
    """
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named).expanduser()
        if not _is_program(path):
            raise Error(
                f"{path}: expected the program terrabench, named by the environment variable {VARIABLE}; found "
                f"{'a file that cannot be executed' if path.is_file() else 'no such file'}\n"
                f"  help: correct {VARIABLE}, or unset it to search the usual places"
            )
        return path
    looked = [f"the environment variable {VARIABLE}: not set"]
    package = Path(__file__).resolve().parent
    for folder in dict.fromkeys([package / "bin", Path(sysconfig.get_path("scripts")), Path(sys.executable).parent]):
        if _is_program(folder / _NAME):
            return folder / _NAME
        looked.append(f"{folder / _NAME}: no such program")
    on_path = shutil.which(_NAME)
    if on_path:
        return Path(on_path)
    looked.append(f"{_NAME} on PATH: not found")
    checkout = package.parent.parent
    if (checkout / "Cargo.toml").is_file():
        built = checkout / "target" / "release" / _NAME
        if _is_program(built):
            return built
        looked.append(f"{built}: no such program")
    places = "".join(f"\n  {place}" for place in looked)
    raise Error(
        f"cannot find the program terrabench. Looked for it in:{places}\n"
        f"  help: build it in a checkout with `cargo build --release`, and set {VARIABLE} to "
        "target/release/terrabench or put that folder on PATH"
    )


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
