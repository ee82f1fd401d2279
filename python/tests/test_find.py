"""Where the program is looked for."""

import os
import stat
import sys
import sysconfig
from pathlib import Path

import pytest

import terrabench
from terrabench import _find


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine without the program."""
    monkeypatch.delenv("TERRABENCH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "scripts"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python" / "python"))
    package = tmp_path / "checkout" / "python" / "terrabench"
    monkeypatch.setattr(_find, "__file__", str(package / "_find.py"))
    package.parent.mkdir(parents=True)
    (package.parent.parent / "Cargo.toml").write_text("")
    return tmp_path


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_missing_program_says_where_it_was_looked_for(nowhere):
    with pytest.raises(terrabench.Error) as caught:
        terrabench.program()
    text = str(caught.value)
    for place in [
        "the environment variable TERRABENCH: not set",
        str(nowhere / "scripts" / "terrabench"),
        "terrabench on PATH: not found",
        str(nowhere / "checkout" / "target" / "release" / "terrabench"),
        "help: build it",
    ]:
        assert place in text


def test_the_order_of_places(nowhere, monkeypatch):
    built = put(nowhere / "checkout" / "target" / "release" / "terrabench")
    assert terrabench.program() == built
    on_path = put(nowhere / "path" / "terrabench")
    assert terrabench.program() == on_path
    scripts = put(nowhere / "scripts" / "terrabench")
    assert terrabench.program() == scripts
    named = put(nowhere / "named")
    monkeypatch.setenv("TERRABENCH", str(named))
    assert terrabench.program() == named


def test_a_wrong_variable_is_an_error_and_not_passed_over(nowhere, monkeypatch):
    put(nowhere / "path" / "terrabench")
    monkeypatch.setenv("TERRABENCH", str(nowhere / "lost"))
    with pytest.raises(terrabench.Error, match="no such file"):
        terrabench.program()
    (nowhere / "text").write_text("")
    monkeypatch.setenv("TERRABENCH", str(nowhere / "text"))
    if os.name == "posix":
        with pytest.raises(terrabench.Error, match="cannot be executed"):
            terrabench.program()
