"""`encode`: the images of a split as the program prepares them, for the caller's own loop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _arrays, _inputs, _progress, _wire
from ._errors import Error
from ._evaluate import data_options
from ._run import Child
from ._serve import ImageInfo, _image_info


@dataclass(frozen=True)
class Batch:
    """Some samples of a split, in the partition's order."""

    images: Any
    """[n, c, h, w], as the model would get them; a list of such arrays if the task's samples have several images."""
    samples: tuple[str, ...]
    """Names of the n samples."""
    labels: Any
    """[n] int64 classes, [n, labels] uint8, [n, h, w] int32 masks, [n] or [n, h, w] float32 numbers."""
    days: Any = None
    """[n] float64: days since 1970-01-01, NaN where unknown; `None` if all are unknown."""
    places: Any = None
    """[n, 2] float32: longitude and latitude in degrees, NaN where unknown; `None` if all are unknown."""

    def __len__(self) -> int:
        return len(self.samples)


class Batches(Iterator[Batch]):
    """The batches of a split. Iterate over it once; leaving early stops the program behind it."""

    suite: str
    task: str
    partition: str
    split: str
    samples: int
    """Number of samples of the split."""
    images: tuple[ImageInfo, ...]
    """Sensor and bands of each image of a sample."""

    def __init__(self, child: Child, kind: str, device: Any) -> None:
        self._child, self._kind, self._device = child, kind, device
        self._messages = child.messages()
        self._ended = False
        try:
            header = self._next("split").header
            self.suite, self.task = str(header["suite"]), str(header["task"])
            self.partition, self.split = str(header["partition"]), str(header["split"])
            self.samples, self._batch_size = int(header["samples"]), int(header["batch_size"])
            self.images = tuple(_image_info(image) for image in header["images"])
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self.samples // self._batch_size)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        if self._ended:
            raise StopIteration
        try:
            message = self._next("batch", "end")
            if message.kind == "end":
                self._finish()
                raise StopIteration
            return self._batch(message)
        except StopIteration:
            raise
        except BaseException:
            self.close()
            raise

    def _next(self, *expected: str) -> _wire.Message:
        for message in self._messages:
            if message.kind in expected:
                return message
        self._finish()
        raise Error(f"the program ended before it sent `{expected[-1]}`")

    def _finish(self) -> None:
        code = self._child.finish()
        self.close()
        if code != 0:
            raise self._child.failure(code)

    def _batch(self, message: _wire.Message) -> Batch:
        def array(name: str) -> Any:
            tensor = message.tensors.get(name)
            if tensor is None:
                return None
            values = _arrays.received(tensor, self._kind)
            return values if self._device is None else values.to(self._device)

        images = [array(f"image{place}") for place in range(len(self.images))]
        return Batch(
            images=images[0] if len(images) == 1 else images,
            samples=tuple(message.header["samples"]),
            labels=array("labels"),
            days=array("days"),
            places=array("places"),
        )

    def close(self) -> None:
        """Stops the program. Called at the end of the loop."""
        if not self._ended:
            self._ended = True
            self._child.__exit__(KeyboardInterrupt if self._child.process.poll() is None else None)

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_ended"):
            # Python may be ending, with parts of it gone already.
            with contextlib.suppress(Exception):
                self.close()


def encode(
    data: str | os.PathLike[str] | None,
    task: str,
    split: str = "test",
    *,
    suite: str = "geobench",
    partition: str = "default",
    demo: bool = False,
    like: str | None = None,
    bands: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    size: int | str | None = None,
    normalization: str | None = None,
    impute: Iterable[Sequence[str]] | None = None,
    batch_size: int = 32,
    arrays: str | None = None,
    device: Any = None,
    threads: int | None = None,
    options: Sequence[str] = (),
) -> Batches:
    """Returns the images of a split in batches, prepared as for a model, with their names and labels.

    For a loop of your own: to encode with code that `evaluate` cannot call, to look at what a model gets, to train.

    Example:
        >>> for batch in terrabench.encode("~/geobench", "m-eurosat", "train", bands=["B04", "B03", "B02"]):
        ...     features = model(batch.images)

    Args:
        data: folder of the suite's official files; `None` for the suite's environment variable, or with `demo=True`.
        task: name of the task.
        split: `train`, `valid` or `test`.
        suite: `geobench`, `copernicus-bench` or `landslide4sense`.
        partition: name of the training partition.
        demo: use small generated data instead.
        like: name of a built-in model, or path of a model's TOML file, whose bands, size and normalisation to use;
            leave out the next three then.
        bands, size, normalization, impute: as for `evaluate`.
        batch_size: images per batch; the last batch may be smaller.
        arrays: `torch`, `numpy` or `memoryview` [default: torch where it was imported, else numpy where installed].
        device: torch device of the arrays.
        threads: threads of the program [default: all cores].
        options: further options of `terrabench batches`, as on its command line.

    Raises:
        terrabench.Error: if a request cannot be fulfilled or the program fails.
    """
    kind = _arrays.checked_kind(arrays)
    if device is not None and kind != "torch":
        raise Error(f"device={device!r} needs torch arrays, found arrays={kind!r}\n  help: pass arrays='torch'")
    if split not in ("train", "valid", "test"):
        raise Error(f"split: expected train, valid or test, found {split!r}")
    if like is not None and any(given is not None for given in (bands, size, impute)):
        raise Error(f"like={like!r} has its own bands, size and substitutes\n  help: leave them out, or like")
    arguments = ["batches", "--suite", suite, "--task", task, "--partition", partition, "--split", split]
    if like is not None:
        arguments += ["--model", like]
    else:
        # Nothing is started: the options that follow say what an encoder takes.
        arguments += ["--encoder", "encode", *_inputs.options(size=size, bands=bands, impute=impute)]
    arguments += ["--batch-size", str(batch_size)] + ["--demo"] * demo + data_options(data, demo)
    arguments += [] if normalization is None else ["--normalization", normalization]
    arguments += [] if threads is None else ["--threads", str(threads)]
    child = Child(
        [*arguments, *options],
        encoder=False,
        display=_progress.Display(),
        allocate=_arrays.Buffers(kind, str(device)),
    )
    return Batches(child, kind, device)
