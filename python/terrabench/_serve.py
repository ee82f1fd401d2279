"""Serves a model to the program: turns batches into calls of the model, and what it returns into features."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _arrays, _wire
from ._errors import Error
from ._safetensors import Tensor
from ._wire import Message

WANTS = ("pooled", "tokens", "maps")
"""What the program may ask of a model."""


@dataclass(frozen=True)
class Band:
    """A spectral band of a sensor."""

    name: str
    """`B02`, `VV`."""
    wavelength_nm: float | None = None
    """Centre in nanometres; `None` for radar and unknown bands."""
    bandwidth_nm: float | None = None
    """Width in nanometres."""
    gsd_m: float | None = None
    """Ground sampling distance in metres."""


@dataclass(frozen=True)
class ImageInfo:
    """One of the images of each sample."""

    sensor: str
    """`s1`, `s2-l1c`, `s2-l2a`, …"""
    bands: tuple[Band, ...]
    """The band of each channel, in order."""
    date: str | None = None
    """Label of its date, such as `before`, if the task has several."""
    side: int | None = None
    """Height and width in pixels, as the model gets it."""
    stored_side: int | None = None
    """Height and width in pixels in the files."""


@dataclass(frozen=True)
class Context:
    """What is known about a batch besides its pixels: the second argument of models called with `context=True`."""

    suite: str
    """Name of the suite: `geobench`."""
    task: str
    """Name of the task: `m-eurosat`."""
    want: str
    """What the program needs: `pooled`, `tokens` or `maps`."""
    images: tuple[ImageInfo, ...]
    """One entry per image of a sample, most often one."""
    normalization: str | None = None
    """How the pixels were normalised."""
    days: Any = None
    """[n] float64: days since 1970-01-01 of each image, NaN where unknown; `None` if all are unknown."""
    places: Any = None
    """[n, 2] float32: longitude and latitude in degrees, NaN where unknown; `None` if all are unknown."""

    @property
    def sensor(self) -> str:
        """Sensor of the first image."""
        return self.images[0].sensor

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands of the first image."""
        return tuple(band.name for band in self.images[0].bands)

    @property
    def wavelengths_nm(self) -> tuple[float | None, ...]:
        """Centres of the bands of the first image in nanometres."""
        return tuple(band.wavelength_nm for band in self.images[0].bands)


@dataclass
class Options:
    """How a model is called, and what the program is told about it."""

    identity: str
    kind: str
    """Kind of arrays that the model takes: one of `_arrays.KINDS`."""
    device: Any = None
    """torch device of the images; `None` for that of the model's first parameter, or the CPU."""
    dtype: Any = None
    """torch type of the images; `None` for that of the model's first parameter, or float32."""
    pixels: str = "float32"
    """`float32`, or `stored` for unnormalised images at their stored size and type."""
    context: bool = False
    """Whether the model is called with a second argument."""
    in_flight: int = 2
    """Batches that may wait here while one is computed."""
    name: str | None = None
    gives: Sequence[str] | None = None
    """What the model can give, if the caller says so."""
    fuses: bool = False
    """Whether the model takes all images of a sample at once."""


@dataclass
class Server:
    """Answers the program's messages with a model."""

    model: Any
    options: Options
    task: Context | None = None
    gives_vectors: bool = False
    """Whether the model was seen to return nothing but one vector per image."""
    allocate: _arrays.Buffers = field(init=False)
    """Gives buffers for messages."""
    _torch: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.options.kind == "torch":
            import torch

            self._torch = torch
            parameter = _first_parameter(self.model, torch)
            if self.options.device is None:
                self.options.device = "cpu" if parameter is None else parameter.device
            if self.options.dtype is None:
                self.options.dtype = torch.float32 if parameter is None else parameter.dtype
            self.options.device = torch.device(self.options.device)
        self.allocate = _arrays.Buffers(self.options.kind, str(self.options.device))

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """While this lasts, a torch module is in evaluation mode and no gradients are kept."""
        if self._torch is None:
            yield
            return
        torch = self._torch
        was = {}
        if isinstance(self.model, torch.nn.Module):
            was = {part: part.training for part in self.model.modules()}
            self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            # Each part on its own: a model in training may hold frozen parts in evaluation mode.
            for part, training in was.items():
                part.training = training

    def answer(self, message: Message) -> tuple[dict[str, Any], dict[str, Tensor] | None] | None:
        """Returns the answer to a message; `None` if it needs none.

        Raises:
            Error: if the message is not understood, or the model returned something that does not fit.
            Exception: whatever the model raises.
        """
        if message.kind == "task":
            task = _task(message.header)
            stored = self.options.pixels == "stored"
            self.task = dataclasses.replace(task, normalization="none") if stored else task
            if self.gives_vectors and task.want != "pooled":
                text = f"the protocol needs {task.want}, the model returns one vector per image: {_HELP[task.want]}"
                return {"message": "error", "text": text}, None
            ready: dict[str, Any] = {
                "message": "ready",
                "terrabench": _wire.VERSION,
                "pixels": self.options.pixels,
                "identity": self.options.identity,
                "in_flight": self.options.in_flight,
            }
            if _wire.SharedMemory.is_there(message.header.get("shared")):
                ready["shared"] = True
            if self.options.name is not None:
                ready["name"] = self.options.name
            if self.options.fuses:
                ready["fuses"] = True
            if self.options.gives is not None:
                ready["wants"] = list(self.options.gives)
            return ready, None
        if message.kind == "batch":
            if self.task is None:
                raise Error("the program sent a batch before it named the task")
            inputs, context = self._inputs(message, self.task)
            n = int(message.header["images"])
            returned = self.model(inputs, context) if self.options.context else self.model(inputs)
            answer = features(returned, context, n)
            answer[0]["id"] = message.header.get("id")
            self.gives_vectors = self.task.want == "pooled" and not isinstance(returned, Mapping)
            return answer
        return None

    def _inputs(self, message: Message, task: Context) -> tuple[Any, Context]:
        tensors = message.tensors
        count = sum(name.startswith("image") for name in tensors)
        # A batch has all images of its samples, or a single one, which `image` tells.
        first = 0 if count == len(task.images) else int(message.header.get("image", 0))
        infos = task.images[first : first + count]
        names = [f"image{place}" for place in range(count)]
        if not infos or len(infos) != count or not all(name in tensors for name in names):
            raise Error(f"expected images of {len(task.images)} kinds in the program's batch, found {list(tensors)}")
        images = [self._image(tensors[name]) for name in names]
        extra = {name: self._extra(tensors[name]) for name in ("days", "places") if name in tensors}
        context = dataclasses.replace(task, images=infos, **extra)
        return images[0] if count == 1 else images, context

    def _image(self, tensor: Tensor) -> Any:
        if self._torch is None:
            return _arrays.received(tensor, self.options.kind)
        pixels = _arrays.received(tensor, "torch")
        return pixels.to(self.options.device, self.options.dtype, non_blocking=True)

    def _extra(self, tensor: Tensor) -> Any:
        values = _arrays.received(tensor, self.options.kind)
        return values.to(self.options.device) if self._torch is not None else values


def _first_parameter(model: Any, torch: Any) -> Any:
    """Returns the parameter or buffer of a module that shows its device and type; `None` if there is none."""
    if not isinstance(model, torch.nn.Module):
        return None
    tensors = [*model.parameters(), *model.buffers()]
    return next((tensor for tensor in tensors if tensor.is_floating_point()), None)


def _task(header: Mapping[str, Any]) -> Context:
    """Reads a task's description.

    Raises:
        Error: if it is of another version, or lacks something.
    """
    version = header.get("terrabench")
    if version != _wire.VERSION:
        raise Error(
            f"this package speaks version {_wire.VERSION} of the wire protocol, the program speaks version {version}\n"
            "  help: install package and program of the same version"
        )
    try:
        want = header["want"]
        images = tuple(_image_info(image) for image in header["images"])
        suite, task = str(header["suite"]), str(header["task"])
    except (KeyError, TypeError, ValueError) as problem:
        raise Error(f"the program's description of the task is not understood: {problem!r}") from None
    if want not in WANTS or not images:
        raise Error(f"the program asks for {want!r} of {len(images)} images; expected one of {', '.join(WANTS)}")
    return Context(suite, task, want, images, header.get("normalization"))


def _image_info(image: Mapping[str, Any]) -> ImageInfo:
    keys = ("wavelength_nm", "bandwidth_nm", "gsd_m")
    bands = tuple(Band(str(band["name"]), *(band.get(key) for key in keys)) for band in image["bands"])
    return ImageInfo(str(image["sensor"]), bands, image.get("date"), image.get("side"), image.get("stored_side"))


def features(returned: Any, task: Context, n: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the message with what the program wants of a model's output for `n` images.

    Raises:
        Error: if the output lacks it, or its shape does not fit.
    """
    line: dict[str, Any] = {"message": "features"}
    if not isinstance(returned, Mapping):
        if task.want != "pooled" and not _is_bare(returned, task.want):
            raise Error(
                f"{_calls(task)} needs {task.want} from the model, which returned {_described(returned)}\n"
                f"  help: {_HELP[task.want]}"
            )
        returned = {task.want: returned}
    if task.want not in returned:
        raise Error(
            f"{_calls(task)} needs {task.want} from the model, which returned a dictionary with "
            f"{', '.join(map(str, returned)) or 'nothing'}\n  help: {_HELP[task.want]}"
        )
    found = returned[task.want]
    if task.want == "pooled":
        return line, {"pooled": _checked(found, "[n, d]", 2, n, task)}
    if task.want == "tokens":
        tokens = _checked(found, "[n, rows * columns, d]", 3, n, task)
        line["grid"] = _grid(returned.get("grid"), tokens.shape[1])
        return line, {"tokens": tokens}
    maps = list(found) if isinstance(found, (list, tuple)) else [found]
    tensors = {f"map{i}": _checked(one, "[n, d, rows, columns]", 4, n, task) for i, one in enumerate(maps)}
    line["strides"] = _strides(returned.get("strides"), list(tensors.values()), task)
    return line, tensors


_HELP = {
    "pooled": "return one vector per image, [n, d], or a dictionary with `pooled`",
    "tokens": "return a dictionary with `tokens` [n, rows * columns, d], no class token, and `grid` (rows, columns)",
    "maps": "return a dictionary with `maps`, a list of [n, d, rows, columns], and `strides`, pixels per position",
}


def _is_bare(returned: Any, want: str) -> bool:
    """Whether an output that is not in a dictionary can only mean what is wanted."""
    shape = None if isinstance(returned, (list, tuple)) else _arrays.shape_of(returned)
    return shape is not None and len(shape) == {"tokens": 3, "maps": 4}[want]


def _calls(task: Context) -> str:
    return f"{task.task}: the protocol"


def _described(value: Any) -> str:
    shape = _arrays.shape_of(value)
    kind = type(value).__name__
    return kind if shape is None else f"{kind} of shape {list(shape)}"


def _checked(value: Any, expected: str, rank: int, n: int, task: Context) -> Tensor:
    shape = _arrays.shape_of(value)
    if shape is None or len(shape) != rank or shape[0] != n:
        raise Error(
            f"{task.task}: expected {task.want} {expected} from the model for n = {n} images, found "
            f"{_described(value)}\n  help: {_HELP[task.want]}"
        )
    return _arrays.sent(value)


def _grid(grid: Any, tokens: int) -> list[int]:
    if grid is None:
        side = round(tokens**0.5)
        if side * side != tokens:
            raise Error(
                f"the model returned {tokens} tokens per image, which form no square, and no `grid`\n"
                "  help: add `grid`: (rows, columns), and leave class tokens out"
            )
        return [side, side]
    try:
        rows, columns = (int(length) for length in grid)
    except (TypeError, ValueError):
        raise Error(f"`grid`: expected (rows, columns) from the model, found {grid!r}") from None
    if rows * columns != tokens:
        raise Error(
            f"the model returned {tokens} tokens per image for a grid of {rows} x {columns}\n"
            "  help: leave class tokens out"
        )
    return [rows, columns]


def _strides(strides: Any, maps: Sequence[Tensor], task: Context) -> list[int]:
    if strides is None:
        side = task.images[0].side
        known = [side // one.shape[2] for one in maps if side and one.shape[2] and side % one.shape[2] == 0]
        if len(known) != len(maps):
            raise Error("the model returned maps without `strides`\n  help: " + _HELP["maps"])
        return known
    try:
        found = [int(stride) for stride in strides]
    except (TypeError, ValueError):
        raise Error(f"`strides`: expected one number per map from the model, found {strides!r}") from None
    if len(found) != len(maps):
        raise Error(f"the model returned {len(maps)} maps and {len(found)} strides")
    return found


def noted(problem: BaseException, task: Context | None) -> None:
    """Adds to an exception of the model which task it happened in, where Python supports that (3.11)."""
    if task is not None and sys.version_info >= (3, 11):
        bands = ", ".join(task.bands)
        problem.add_note(f"terrabench: raised by the model for images of {task.task} ({bands})")
