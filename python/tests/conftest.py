"""A program that stands in for `terrabench`, and the real one where it is built."""

import json
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))


class Fake:
    """The stand-in: what it shall do, and what it saw."""

    def __init__(self, folder: Path) -> None:
        self.scene, self.log = folder / "scene.json", folder / "seen.jsonl"
        self.play()

    def play(self, tasks=({"name": "m-eurosat", "batches": [2, 2, 1]},), **more) -> None:
        self.scene.write_text(json.dumps({"tasks": list(tasks), **more}))
        self.log.write_text("")

    @property
    def seen(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def all(self, key: str) -> list:
        return [entry[key] for entry in self.seen if key in entry]


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Fake:
    program = tmp_path / "terrabench"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{HERE / 'fake_program.py'}' \"$@\"\n")
    program.chmod(0o755)
    fake = Fake(tmp_path)
    monkeypatch.setenv("TERRABENCH", str(program))
    monkeypatch.setenv("FAKE_SCENE", str(fake.scene))
    monkeypatch.setenv("FAKE_SEEN", str(fake.log))
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """A cache for all tests: the demo's data are generated once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def real(tmp_path, monkeypatch, cache) -> Path:
    """The real program. Skips where it is not built."""
    named = os.environ.get("TERRABENCH_TEST_PROGRAM")
    built = HERE.parent.parent / "target" / "release" / "terrabench"
    program = Path(named) if named else built
    if not program.is_file():
        pytest.skip(f"{program} is not built: cargo build --release")
    monkeypatch.setenv("TERRABENCH", str(program))
    monkeypatch.setenv("TERRABENCH_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    return program
