"""Records and predictions, as the program writes them."""

from __future__ import annotations

import html
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from . import _arrays, _safetensors
from ._errors import Error

SCHEMA = 2
"""Newest version of the record files that this package reads."""

PREDICTIONS_FORMAT = 3
"""Newest version of the prediction files that this package reads."""

_DECIMALS = {"rmse": 2, "mae": 2, "r2": 3, "adjusted_mutual_information": 3}
"""Decimals of the metrics that are not percentages, as in the program's tables."""

_HIGHER_IS_BETTER = {"rmse": False, "mae": False}


@dataclass(frozen=True)
class Interval:
    """A bootstrap interval of a value, in the value's unit."""

    low: float
    high: float
    level: float
    """Coverage, between 0 and 1."""


@dataclass(frozen=True)
class Record:
    """One finished cell: a model's score on a task with one protocol, partition and seed."""

    suite: str
    task: str
    partition: str
    protocol: str
    model: str
    backbone: str
    seed: int
    metric: str
    """`accuracy`, `micro_f1`, `micro_map`, `miou`, `rmse`, `mae` or `r2`."""
    value: float
    """Value of the metric on the test split: percent, or the task's unit for `rmse` and `mae`."""
    interval: Interval | None
    scores: Mapping[str, float]
    """Further scores by name."""
    selected: Mapping[str, str]
    """Hyperparameters, chosen on validation or fixed."""
    samples: Mapping[str, int]
    """Number of samples used per split."""
    demo: bool
    """Whether the data were generated: never a benchmark number."""
    short: bool
    """Whether the run was shortened: never a benchmark number."""
    notes: tuple[str, ...]
    """What a reader must know about the value, such as duplicates among the test images."""
    fingerprint: str
    """Names everything that decides the value."""
    provenance: Mapping[str, Any]
    """Where the value comes from: weights, data, bands, device, times."""
    raw: Mapping[str, Any] = field(repr=False)
    """The record as in its file."""
    path: Path = field(repr=False)
    """The record's file."""

    def __str__(self) -> str:
        return f"{self.task} {self.partition} {self.protocol} seed {self.seed}: {self.metric} {self.shown}"

    @property
    def shown(self) -> str:
        """The value with its interval, as in the program's output: `70.8 [65.1, 76.0]`."""
        decimals = _DECIMALS.get(self.metric, 1)
        text = f"{self.value:.{decimals}f}"
        if self.interval is not None:
            text += f" [{self.interval.low:.{decimals}f}, {self.interval.high:.{decimals}f}]"
        return text

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher value is better."""
        return _HIGHER_IS_BETTER.get(self.metric, True)

    def predictions(self) -> Predictions:
        """Reads the predictions on the test split that the value was computed from.

        Raises:
            Error: if the file is missing, damaged or of another record.
        """
        name = self.path.name.removesuffix(".json") + ".safetensors"
        return _predictions(self.path.parent.parent / "predictions" / name, self.fingerprint)


@dataclass(frozen=True)
class Predictions:
    """The predictions of a record with the truth. Arrays are numpy's where numpy is installed, else memory views."""

    kind: str
    """`class`, `multi-label`, `scores`, `mask`, `value`, `value-map`, `rankings` or `clusters`."""
    samples: tuple[str, ...]
    """Names of the n test samples, in the order of the arrays."""
    predicted: Any
    """[n] classes or numbers, [n, labels] of 0 and 1; `None` for other kinds."""
    truth: Any
    """The same for the truth; [n, labels] for `scores`; classes or labels for `rankings` and `clusters`; `None` for `mask` and
    `value-map`."""
    logits: Any
    """[n, labels] float32 for `scores`, else `None`."""
    counts: Any
    """[n, classes + 1, classes] for `mask`: pixels by label (last: no class) and prediction; else `None`."""
    sums: Any
    """[n, 5] for `value-map`: pixels, and sums of absolute errors, squared errors, truth and squared truth; else
    `None`."""
    precisions: Any
    """[n] for `rankings`: average precision of each query, 0 to 1; else `None`."""
    ranks: Any
    """[n, 2] for `rankings`: place of the first relevant image (from 1), and number of relevant images; else `None`."""
    clusters: Any
    """[n] for `clusters`: the cluster of each image; else `None`."""
    probabilities: Any
    """[n, classes] of heads trained with cross-entropy and of k-NN (shares of the votes), 0 to 1; else `None`."""
    map_samples: Any
    """[m] indices of the samples in the report's map of `rankings` and `clusters`; else `None`."""
    map_features: Any
    """[m, components] of these samples: principal components of their features; else `None`."""
    classes: int
    """Number of classes or labels."""
    class_names: tuple[str, ...]
    """Names of the classes; empty if unknown."""
    path: Path
    """The file."""

    def __len__(self) -> int:
        return len(self.samples)


class Records(Sequence[Record]):
    """A list of records that prints as a table and turns into a data frame."""

    def __init__(self, records: Iterable[Record] = (), unreadable: Iterable[str] = ()) -> None:
        self._records = list(records)
        self.unreadable = list(unreadable)
        """Files that could not be used, each with the reason."""

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> Records: ...
    def __getitem__(self, place: int | slice) -> Record | Records:
        return Records(self._records[place]) if isinstance(place, slice) else self._records[place]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __add__(self, other: Records) -> Records:
        return Records([*self, *other], [*self.unreadable, *other.unreadable])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Records) and self._records == other._records

    __hash__ = None  # type: ignore[assignment]

    def where(self, test: Callable[[Record], bool] | None = None, **wanted: Any) -> Records:
        """Returns the records with these attributes: `results.where(task="m-eurosat", protocol="knn")`.

        Raises:
            AttributeError: if records have no such attribute.
        """
        return Records(
            record
            for record in self
            if all(getattr(record, name) == value for name, value in wanted.items()) and (test is None or test(record))
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """Returns one flat dictionary per record, with the columns of the program's `results.parquet`."""
        return [_row(record) for record in self]

    def to_pandas(self) -> Any:
        """Returns a pandas data frame with one row per record.

        Raises:
            Error: if pandas is not installed.
        """
        return _library("pandas").DataFrame(self.to_dicts(), columns=list(_COLUMNS))

    def to_polars(self) -> Any:
        """Returns a polars data frame with one row per record.

        Raises:
            Error: if polars is not installed.
        """
        polars = _library("polars")
        schema = {name: getattr(polars, kind) for name, (kind, _) in _COLUMNS.items()}
        return polars.DataFrame(self.to_dicts(), schema=schema)

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        constant = ("model", "partition", "seed")
        differ = [name for name in constant if len({getattr(record, name) for record in self}) > 1]
        columns = ["task", "protocol", *differ, "metric", "value"]

        def cell(record: Record, name: str) -> str:
            return record.shown if name == "value" else str(getattr(record, name))

        return columns, [[cell(record, name) for name in columns] for record in self]

    def __repr__(self) -> str:
        if not self._records:
            return "no records"
        columns, rows = self._cells()
        widths = [max(map(len, column)) for column in zip(columns, *rows)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in [columns, *rows]]
        return "\n".join([*lines, *self._warnings()])

    def _repr_html_(self) -> str:
        if not self._records:
            return "<p>no records</p>"
        columns, rows = self._cells()

        def row(cells: list[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        table = "".join([row(columns, "th"), *(row(cells, "td") for cells in rows)])
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self._warnings())
        return f"<table>{table}</table>{notes}"

    def _warnings(self) -> list[str]:
        lines = []
        if any(record.demo for record in self):
            lines.append("Demo: generated data. These numbers say nothing about any model or benchmark.")
        if any(record.short for record in self):
            lines.append("Some runs were shortened: their numbers are not benchmark numbers.")
        kinds: dict[str, dict[str, None]] = {}
        for record in self:
            for note in record.notes:
                kinds.setdefault(record.task, {})[note.partition(":")[0]] = None
        if kinds:
            told = "; ".join(f"{task}: {', '.join(found)}" for task, found in kinds.items())
            lines.append(f"Notes on {told} (each record's `notes` say more)")
        return lines


def load(results: str | os.PathLike[str] = "results") -> Records:
    """Reads the records in a results folder of the program.

    Args:
        results: the folder that `evaluate` or `terrabench bench --out` wrote to, such as `results` or
            `results/geobench`.

    Returns:
        All records, sorted by cell. Files that cannot be used are listed in `Records.unreadable` and in a warning; they
        stop nothing.

    Raises:
        Error: if the folder contains no records.
    """
    folder = Path(results).expanduser()
    stores = [folder / "records"] if (folder / "records").is_dir() else []
    if not stores and folder.is_dir():
        stores = sorted(below / "records" for below in folder.iterdir() if (below / "records").is_dir())
    if not stores:
        raise Error(
            f"{folder}: expected `records/` here or one level below, found none\n"
            "  help: name the folder that `evaluate(results=...)` or `terrabench bench --out` wrote to"
        )
    paths = [path for store in stores for path in sorted(store.glob("*.json")) if not path.name.startswith(".")]
    return read_all(paths, warn=True)


def read_all(paths: Iterable[Path], *, warn: bool = False) -> Records:
    """Reads records and sorts them by cell. Files that cannot be used are listed in the result."""
    records, unreadable = [], []
    for path in paths:
        try:
            records.append(read(path))
        except Error as problem:
            unreadable.append(str(problem))
    records.sort(key=lambda r: (r.suite, r.task, r.partition, r.protocol, r.model, r.backbone, r.seed, r.fingerprint))
    if unreadable and warn:
        warnings.warn("not used:\n" + "\n".join(unreadable), stacklevel=3)
    return Records(records, unreadable)


def read(path: Path) -> Record:
    """Reads one record.

    Raises:
        Error: if the file is not a record that this package understands.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise Error(f"{path}: cannot be read: {problem.strerror}") from problem
    except ValueError as problem:
        raise Error(f"{path}: not a record: {problem}\n  help: delete the file and run the cell again") from None
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise Error(
            f"{path}: a record of schema {schema}; this package reads schemas 1 to {SCHEMA}\n"
            "  help: install the version of terrabench that wrote it"
        )
    try:
        if schema not in (1, SCHEMA):
            raise KeyError("schema")
        return _record(raw, path)
    except KeyError as problem:
        wrong = f"{problem} is missing"
    except (TypeError, ValueError, AttributeError) as problem:
        wrong = str(problem)
    raise Error(f"{path}: not a record: {wrong}\n  help: delete the file and run the cell again")


def _record(raw: dict[str, Any], path: Path) -> Record:
    cell, interval = raw["cell"], raw["interval"]
    return Record(
        **{name: str(cell[name]) for name in ("suite", "task", "partition", "protocol", "model", "backbone")},
        seed=int(cell["seed"]),
        metric=str(raw["metric"]),
        value=float(raw["value"]),
        interval=None if interval is None else Interval(*(float(interval[key]) for key in ("low", "high", "level"))),
        scores=dict(raw["scores"]),
        selected=dict(raw["selected"]),
        samples=dict(raw["samples"]),
        demo=bool(raw["demo"]),
        short=bool(raw.get("short", False)),
        notes=tuple(f"{note['kind']}: {note['text']}" for note in raw.get("notes", ())),
        fingerprint=str(raw["fingerprint"]),
        provenance=dict(raw["provenance"]),
        raw=raw,
        path=path,
    )


_PREDICTED = (
    "predicted",
    "truth",
    "logits",
    "counts",
    "sums",
    "precisions",
    "ranks",
    "clusters",
    "probabilities",
    "map-samples",
    "map-features",
)
"""Names of the arrays in a file of predictions."""


def _predictions(path: Path, fingerprint: str) -> Predictions:
    def damaged(problem: object) -> Error:
        return Error(
            f"{path}: not the predictions of the record: {problem}\n  help: run the cell again with fresh=True"
        )

    try:
        tensors, metadata = _safetensors.read(path.read_bytes())
    except FileNotFoundError:
        raise Error(f"{path}: no such file: the record's predictions were not kept") from None
    except OSError as problem:
        raise Error(f"{path}: cannot be read: {problem.strerror}") from problem
    except _safetensors.Malformed as problem:
        raise damaged(problem) from None
    try:
        version = int(metadata.get("format", 1))
        if version > PREDICTIONS_FORMAT:
            raise Error(f"{path}: format {version} is newer than this package, which reads up to {PREDICTIONS_FORMAT}")
        if metadata["record"] != fingerprint:
            raise damaged(f"expected record {fingerprint}, found {metadata['record']}")
        samples = tuple(json.loads(metadata["samples"]))
        lengths = {name: tensor.shape[0] for name, tensor in tensors.items() if not name.startswith("map-")}
        wrong = {name: length for name, length in lengths.items() if length != len(samples)}
        if wrong:
            raise damaged(f"{len(samples)} samples, but arrays of {wrong}")
        arrays = {name: _arrays.best(tensor) for name, tensor in tensors.items()}
        return Predictions(
            kind=metadata["kind"],
            samples=samples,
            **{name.replace("-", "_"): arrays.get(name) for name in _PREDICTED},
            classes=int(metadata["classes"]),
            class_names=tuple(json.loads(metadata.get("class-names", "[]"))),
            path=path,
        )
    except (KeyError, TypeError, ValueError, IndexError) as problem:
        raise damaged(repr(problem)) from None


def _library(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise Error(f"{name} is not installed\n  help: pip install {name}") from None


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _coverage(provenance: Mapping[str, Any]) -> str:
    """How much of the model its weights cover, in the words of the program's tables."""
    weights, coverage = str(provenance.get("weights", "")), provenance.get("coverage") or {}
    state = "random" if weights.startswith("random:") else coverage.get("state", "whole")
    if state == "partial" and "loaded" in coverage:
        return f"partial weights: {coverage['loaded']} of {coverage.get('parameters')} parameters"
    return f"{state} weights"


def _sensors(provenance: Mapping[str, Any]) -> str:
    first = provenance.get("sensor", provenance.get("stem", ""))
    return " + ".join(dict.fromkeys([first, *(image["sensor"] for image in provenance.get("images", ()))]))


_COLUMNS: dict[str, tuple[str, Callable[[Record], Any]]] = {
    "suite": ("String", lambda r: r.suite),
    "task": ("String", lambda r: r.task),
    "partition": ("String", lambda r: r.partition),
    "protocol": ("String", lambda r: r.protocol),
    "model": ("String", lambda r: r.model),
    "backbone": ("String", lambda r: r.backbone),
    "seed": ("UInt64", lambda r: r.seed),
    "demo": ("Boolean", lambda r: r.demo),
    "short": ("Boolean", lambda r: r.short),
    "metric": ("String", lambda r: r.metric),
    "value": ("Float64", lambda r: r.value),
    "low": ("Float64", lambda r: r.interval and r.interval.low),
    "high": ("Float64", lambda r: r.interval and r.interval.high),
    "level": ("Float64", lambda r: r.interval and r.interval.level),
    "scores": ("String", lambda r: _json(r.scores)),
    "selected": ("String", lambda r: _json(r.selected)),
    "samples": ("String", lambda r: _json(r.samples)),
    "fingerprint": ("String", lambda r: r.fingerprint),
    "settings": ("String", lambda r: r.raw.get("settings")),
    "weights": ("String", lambda r: r.provenance.get("weights")),
    "coverage": ("String", lambda r: _coverage(r.provenance)),
    "data": ("String", lambda r: r.provenance.get("data")),
    "sensor": ("String", lambda r: _sensors(r.provenance)),
    "normalization": ("String", lambda r: r.provenance.get("normalization")),
    "band_names": ("String", lambda r: r.provenance.get("band-names")),
    "pooling": ("String", lambda r: r.provenance.get("pooling")),
    "inputs": ("String", lambda r: r.provenance.get("inputs", "as-published")),
    "channels": ("String", lambda r: r.provenance.get("channels", "all")),
    "bands": ("String", lambda r: _json(r.provenance.get("bands", []))),
    "imputed": ("String", lambda r: _json(r.provenance.get("imputed", []))),
    "image_size": ("UInt64", lambda r: r.provenance.get("image-size")),
    "device": ("String", lambda r: r.provenance.get("device")),
    "threads": ("UInt64", lambda r: r.provenance.get("threads")),
    "terrabench": ("String", lambda r: r.provenance.get("terrabench")),
    "git_revision": ("String", lambda r: r.provenance.get("git-revision") if r.raw.get("schema") != 1 else None),
    "git_dirty": ("Boolean", lambda r: r.provenance.get("git-dirty", False)),
    "configs": ("String", lambda r: _json(r.provenance.get("configs", {}))),
    "protocol_settings": ("String", lambda r: _json(r.raw.get("protocol-settings", {}))),
    "notes": ("String", lambda r: _json(r.raw.get("notes", []))),
    "finished": ("UInt64", lambda r: r.provenance.get("finished")),
    "wall_seconds": ("Float64", lambda r: r.provenance.get("wall-seconds")),
    "declared": ("String", lambda r: _json(r.provenance.get("declared", {}))),
    "origin": ("String", lambda r: r.provenance.get("origin")),
    "depth": ("UInt64", lambda r: r.provenance.get("depth")),
    "resize": ("String", lambda r: r.provenance.get("resize")),
    "beside": ("String", lambda r: r.provenance.get("beside", {}).get("model")),
    "images_per_second": ("Float64", lambda r: r.provenance.get("speed", {}).get("images-per-second")),
    "peak_memory_bytes": ("UInt64", lambda r: r.provenance.get("speed", {}).get("peak-memory-bytes")),
    "record": ("String", lambda r: r.path.name),
}
"""Columns of data frames, as in the program's `results.parquet`: polars' type, and the value."""


def _row(record: Record) -> dict[str, Any]:
    return {name: of(record) for name, (_, of) in _COLUMNS.items()}
