"""`evaluate`: a model of the caller's, measured by the program."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _identity, _inputs, _progress, _records
from ._arrays import checked_kind
from ._errors import Error, meant
from ._records import Records
from ._run import SOME_UNREADABLE, Child
from ._serve import WANTS, Options, Server, noted

DEFAULTS = "terrabench_defaults"
"""Attribute of a model with default values for the keyword arguments of `evaluate`."""


def evaluate(
    model: Any,
    suite: str = "geobench",
    *,
    tasks: str | Iterable[str] = (),
    partitions: str | Iterable[str] = (),
    protocols: str | Iterable[str] = (),
    seeds: int | Iterable[int] = (0,),
    data: str | os.PathLike[str] | None = None,
    demo: bool = False,
    bands: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    size: int | str | None = None,
    normalization: str | None = None,
    pixels: str | None = None,
    impute: Iterable[Sequence[str]] | None = None,
    name: str | None = None,
    backbone: str | None = None,
    identity: str | None = None,
    device: Any = None,
    dtype: Any = None,
    arrays: str | None = None,
    batch_size: int = 32,
    context: bool | None = None,
    gives: Sequence[str] | None = None,
    fuses: bool | None = None,
    results: str | os.PathLike[str] = "results",
    fresh: bool = False,
    limit: int | None = None,
    epochs: int | None = None,
    cache: bool = True,
    threads: int | None = None,
    progress: bool | None = None,
    options: Sequence[str] = (),
) -> Records:
    """Measures a model on a suite and returns its records.

    Runs the program `terrabench` as a child. It reads the data, prepares the pixels and scores the features; this
    process computes them with `model`, on your device. Features are cached and finished cells are not computed again,
    as for a built-in model.

    Args:
        model: a `torch.nn.Module`, or anything that can be called with a batch of images [n, c, h, w] and returns
            features [n, d]. It may return a dictionary instead: `pooled` [n, d]; `tokens` [n, rows * columns, d] with
            `grid` (rows, columns), for the protocol `segmentation-probe`; `maps`, a list of [n, d, rows, columns],
            with `strides`, for `upernet`.
        suite: `geobench`, `copernicus-bench` or `landslide4sense`.
        tasks: names of tasks [default: the tasks of the suite's tables].
        partitions: names of training partitions [default: those of the tables].
        protocols: `knn`, `linear-probe`, `logistic`, `ridge`, `segmentation-probe`, `upernet`, … [default: the
            suite's]. Protocols that train the model itself need a built-in model.
        seeds: seeds for the protocols' random choices.
        data: folder of the suite's official files [default: the suite's environment variable, such as GEO_BENCH_DIR].
        demo: use small generated data instead, to try things. The results are not benchmark numbers.
        bands: names of the bands that the model takes, in order (`["B04", "B03", "B02"]`), or such a list per sensor
            (`{"s1": ["VV", "VH"], "s2-l2a": [...]}`) [default: all bands of the task's sensor that the files have].
        size: height and width to which images are resized, or "native" [default: 224, or the task's own size where the
            suite sets one].
        normalization: how pixels are normalised: `dataset` (with the data set's mean and deviation), `none` (not at
            all), `sweep` (choose on validation) or the name of a strategy [default: as the suite's reference does].
        pixels: `stored` for pixels as they are in the files, neither normalised nor resized [default: `float32`].
        impute: pairs of bands (source, target): what replaces a band that the files lack. The source `zeros` means
            zeros after normalisation.
        name: the model's name in records and tables [default: its class or function].
        backbone: its encoder's name in tables [default: "own encoder"].
        identity: a text that changes when the model changes. Needed only if Terrabench cannot tell itself: see
            `docs/python.md`.
        device: torch device of the images [default: that of the model's parameters].
        dtype: torch type of the images [default: that of the model's parameters].
        arrays: what the model is called with: `torch`, `numpy` or `memoryview` [default: torch for modules and where
            torch was imported, else numpy where installed].
        batch_size: images per batch.
        context: call the model with a second argument: a `terrabench.Context` with bands, wavelengths, dates, places.
        gives: what the model can give, of `pooled`, `tokens` and `maps` [default: found out by calling it].
        fuses: take all images of a sample at once, as a list of batches, where a task has several: Sentinel-1 and 2,
            or two dates [default: each image is encoded alone, and the program combines the features].
        results: folder for records and tables, as `terrabench bench --out`.
        fresh: compute finished cells again.
        limit: use only this many samples per split, with `segmentation-probe` and `upernet`; such records are marked
            and appear in no table.
        epochs: train for only this many epochs, with the same protocols and the same effect.
        cache: whether to read and write the cache of features.
        threads: threads of the program [default: all cores].
        progress: `False` shows nothing.
        options: further options of `terrabench bench`, as on its command line.

    Returns:
        The records of this run, those of cells that were finished before included.

    Raises:
        terrabench.Error: if a request cannot be fulfilled or the program fails. `Error.records` holds the cells that
            finished.
        Exception: whatever your model raises, with its own traceback.
    """
    explicit = {
        "bands": bands, "size": size, "normalization": normalization, "pixels": pixels, "impute": impute,
        "name": name, "backbone": backbone, "context": context, "gives": gives, "arrays": arrays, "fuses": fuses,
    }  # fmt: skip
    settings = described(model, explicit, identity=identity, device=device, dtype=dtype)
    arguments = ["bench", suite, "--out", os.fspath(Path(results).expanduser()), "--batch-size", str(batch_size)]
    arguments += _repeated("--task", tasks) + _repeated("--partition", partitions)
    arguments += _repeated("--protocol", protocols) + _repeated("--seed", _listed(seeds))
    arguments += data_options(data, demo) + ["--demo"] * demo
    arguments += _option("--normalization", settings.normalization) + _option("--limit", limit)
    arguments += _option("--epochs", epochs) + _option("--threads", threads)
    arguments += ["--fresh"] * fresh + ["--no-cache"] * (not cache or not settings.is_known) + list(options)
    code, child = serve(model, settings.serving, [*arguments, *settings.inputs], progress)
    records = written(child.output)
    if code not in (0, SOME_UNREADABLE):
        failure = child.failure(code)
        failure.records = records
        raise failure
    if code == SOME_UNREADABLE:
        warnings.warn("some files beside the records could not be read; see the program's output", stacklevel=2)
    return records


@dataclass
class Settings:
    """How a model is described to the program and served to it."""

    serving: Options
    inputs: list[str]
    """Options of the program: names, bands, size."""
    normalization: str | None
    is_known: bool
    """Whether a change of the model changes its identity, so that features may be kept for later runs."""


def described(
    model: Any, explicit: Mapping[str, Any], *, identity: str | None, device: Any = None, dtype: Any = None
) -> Settings:
    """Combines the caller's choices with what the model says about itself.

    Raises:
        Error: if a choice is wrong.
    """
    if not callable(model):
        raise Error(
            f"expected a model that can be called with a batch of images, found {type(model).__name__}\n"
            "  help: pass a torch.nn.Module or a function from [n, c, h, w] to [n, d]"
        )
    own = _defaults(model, explicit)
    chosen = {key: own.get(key) if value is None else value for key, value in explicit.items()}
    pixels = chosen["pixels"] or "float32"
    if pixels not in ("float32", "stored"):
        raise Error(f"pixels: expected float32 or stored, found {pixels!r}")
    if pixels == "stored" and chosen["normalization"] is not None:
        raise Error("pixels='stored' are never normalised\n  help: leave out normalization, and normalise in the model")
    gives = chosen["gives"]
    unknown = [want for want in gives or () if want not in WANTS]
    if unknown:
        raise Error(f"gives: expected {', '.join(WANTS)}, found {', '.join(map(str, unknown))}")
    is_known = True
    if identity is None:
        try:
            identity = _identity.identity(model)
        except _identity.Unknown as problem:
            is_known, identity = False, f"unknown:{uuid.uuid4().hex}"
            warnings.warn(
                f"cannot tell when this model changes: {problem}. Its features are not kept, and its cells are "
                "computed again in every run. Pass identity='a text that you change with the model' to keep them.",
                stacklevel=3,
            )
    elif not identity or not isinstance(identity, str):
        raise Error(f"identity: expected a text that changes when the model changes, found {identity!r}")
    kind = chosen["arrays"]
    if kind is None and _identity.is_module(model):
        kind = "torch"
    name = chosen["name"] or _name(model)
    serving = Options(
        identity=identity,
        kind=checked_kind(kind),
        device=device,
        dtype=dtype,
        pixels=pixels,
        context=bool(chosen["context"]),
        name=name,
        gives=gives,
        fuses=bool(chosen["fuses"]),
    )
    keys = ("backbone", "size", "bands", "impute")
    inputs = _inputs.options(name=name, **{key: chosen[key] for key in keys})
    return Settings(serving, inputs, chosen["normalization"], is_known)


def _defaults(model: Any, known: Iterable[str]) -> dict[str, Any]:
    """Returns the model's own values for keyword arguments.

    Raises:
        Error: if one of them is no argument that a model can have a default for.
    """
    found = getattr(model, DEFAULTS, None)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise Error(f"{DEFAULTS}: expected a dictionary of arguments, found {type(found).__name__}")
    known = list(known)
    for key in found:
        if key not in known:
            raise Error(f"{DEFAULTS}: expected keys of {', '.join(known)}; found {key!r}{meant(str(key), known)}")
    return dict(found)


def serve(model: Any, options: Options, arguments: Sequence[str], progress: bool | None) -> tuple[int, Child]:
    """Runs the program with the model as its encoder. Returns its exit code and what it said.

    Raises:
        Exception: what the model raised.
    """
    server = Server(model, options)
    display = _progress.display(progress)
    child = Child([*arguments, "--progress", "json"], encoder=True, display=display, allocate=server.allocate)
    try:
        with child, server.ready():
            for message in child.messages():
                try:
                    answer = server.answer(message)
                except Exception as problem:
                    child.send({"message": "error", "text": f"{type(problem).__name__}: {problem}"})
                    if not isinstance(problem, Error):
                        noted(problem, server.task)
                    raise
                if answer is not None and not child.send(*answer):
                    break
                if message.kind == "end":
                    child.hang_up()
            return child.finish(), child
    except Error as problem:
        # Leaving the block took in the rest of the program's output.
        problem.records = written(child.output)
        raise


def data_options(data: str | os.PathLike[str] | None, demo: bool) -> list[str]:
    """Returns the option for the folder of data.

    Raises:
        Error: if both a folder and the demo are asked for.
    """
    if data is None:
        return []
    if demo:
        raise Error("demo=True generates its data\n  help: leave out data, or demo")
    return ["--data", os.fspath(Path(data).expanduser())]


def _name(model: Any) -> str:
    name = getattr(model, "__name__", None) or type(model).__name__
    return "model" if name == "<lambda>" else str(name)


def _listed(values: Any) -> list[str]:
    if isinstance(values, (str, int)):
        return [str(values)]
    return [str(value) for value in values]


def _repeated(option: str, values: Any) -> list[str]:
    return [word for value in _listed(values) for word in (option, value)]


def _option(option: str, value: Any) -> list[str]:
    return [] if value is None else [option, str(value)]


def written(output: Sequence[str]) -> Records:
    """Reads the records among the files that the program lists."""
    paths = [Path(line.strip()) for line in output if line.startswith("  ") and line.endswith(".json")]
    return _records.read_all(path for path in paths if path.parent.name == "records" and path.is_file())
