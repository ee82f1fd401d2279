"""Runs the program as a child: its pipes, its messages, and how both sides stop."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from . import _progress, _wire
from ._errors import Error, in_python
from ._find import program
from ._progress import Display
from ._wire import Message

_POLITE_SECONDS = 10.0
"""Time that the program has to end by itself."""

_PIPE = 1 << 20
"""Bytes that a pipe should hold, where the system allows it: larger pipes need fewer switches between the sides."""

_LONGEST_LOG = 10_000
"""Lines of the program's standard error that are kept."""

SOME_UNREADABLE = 3
"""The program's exit code if it succeeded but could not read some files beside the records."""


class Child:
    """The running program, with the ends of its pipes that belong to this side.

    Use it as a context manager: leaving it early, whether by an exception or Ctrl-C, stops the program.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        encoder: bool,
        display: Display,
        allocate: _wire.Allocator = bytearray,
    ) -> None:
        """Starts the program. With `encoder`, adds `--encoder fd:R,W` and reads messages from that pipe; otherwise
        reads messages from its standard output."""
        if encoder and os.name != "posix":
            raise Error(
                "evaluating a model through this package needs Linux or macOS\n"
                "  help: on Windows, write an encoder program and pass it with `terrabench bench --encoder COMMAND`"
            )
        self.display = display
        self.allocate = allocate
        self.log: list[str] = []
        self.output: list[str] = []
        self.write_end = -1
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._interrupted = False
        command = [str(program()), *arguments]
        opened: list[int] = []
        passed: tuple[int, ...] = ()
        if encoder:
            to_child, from_child = os.pipe(), os.pipe()
            opened = [*to_child, *from_child]
            for end in (to_child[1], from_child[1]):
                _enlarge(end)
            passed = (to_child[0], from_child[1])
            command += ["--encoder", f"fd:{passed[0]},{passed[1]}"]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=passed,
            )
        except OSError as problem:
            for end in opened:
                os.close(end)
            raise Error(f"{command[0]}: cannot be started: {problem}") from problem
        for end in passed:
            os.close(end)
        assert self.process.stdout is not None and self.process.stderr is not None
        self._open = 2 + int(encoder)
        if encoder:
            self.write_end = to_child[1]
            self._start(self._read_messages, os.fdopen(from_child[0], "rb", buffering=1 << 16))
            self._start(self._read_lines, self.process.stdout, "output")
        else:
            _enlarge(self.process.stdout.fileno())
            self._start(self._read_messages, self.process.stdout)
        self._start(self._read_lines, self.process.stderr, "log")

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def _read_messages(self, stream: BinaryIO) -> None:
        memory = _wire.SharedMemory()
        try:
            with stream:
                while (message := _wire.read(stream, self.allocate, memory)) is not None:
                    self._events.put(("message", message))
        except Exception as problem:  # raised again where the messages are used
            self._events.put(("problem", problem))
        finally:
            self._events.put(("closed", None))

    def _read_lines(self, stream: BinaryIO, kind: str) -> None:
        try:
            with stream:
                for line in stream:
                    self._events.put((kind, line.decode("utf-8", "replace").rstrip("\r\n")))
        finally:
            self._events.put(("closed", None))

    def messages(self) -> Iterator[Message]:
        """Yields the program's messages until it closes its pipes, and shows its progress meanwhile.

        Raises:
            Error: if a message is malformed.
        """
        while self._open:
            message = self._next(None)
            if message is not None:
                yield message

    def _next(self, timeout: float | None) -> Message | None:
        kind, value = self._events.get(timeout=timeout)
        if isinstance(value, Message):
            return value
        if kind == "problem":
            raise value
        if kind == "closed":
            self._open -= 1
        elif kind == "output":
            self.output.append(value)
        else:
            self._log(value)
        return None

    def _log(self, line: str) -> None:
        step = _progress.parse(line)
        if step is not None:
            self.display.step(step)
            return
        self.log.append(line)
        del self.log[:-_LONGEST_LOG]
        if not self._is_error(line):
            self.display.note(line)

    def _is_error(self, line: str) -> bool:
        """Whether the line belongs to the program's last words, which the exception repeats."""
        return any(earlier.startswith("error: ") for earlier in self.log[-20:])

    def send(self, header: dict[str, Any], tensors: dict[str, Any] | None = None) -> bool:
        """Sends a message. Returns false if the program has ended; its exit code then says why."""
        try:
            _wire.write(self.write_end, header, tensors)
        except BrokenPipeError:
            return False
        return True

    def hang_up(self) -> None:
        """Closes the pipe to the program."""
        if self.write_end >= 0:
            with contextlib.suppress(OSError):
                os.close(self.write_end)
            self.write_end = -1

    def finish(self) -> int:
        """Waits until the program ends by itself. Returns its exit code."""
        for _ in self.messages():
            pass
        return self.process.wait()

    def failure(self, code: int) -> Error:
        """Returns the error that describes why the program ended with that code."""
        log = "\n".join(self.log)
        starts = [place for place, line in enumerate(self.log) if line.startswith("error: ")]
        if starts:
            # The last words; a command line that is not understood is explained on the lines that follow.
            text = "\n".join(self.log[starts[-1] :]).removeprefix("error: ").rstrip()
        elif code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            reason = "; it may have run out of memory" if name == "SIGKILL" else ""
            text = f"the program was stopped by {name}{reason}"
        else:
            text = f"the program ended with exit code {code}"
            if self.log:
                text += ":\n" + "\n".join(self.log[-10:])
        return Error(in_python(text), returncode=code, log=log)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                # What the program says about being stopped is of no use beside the exception.
                self.display.close()
                self.display = Display()
            if self.process.poll() is None or self._open:
                interrupted = kind is not None and not issubclass(kind, Exception)
                self._stop(interrupted)
        finally:
            self.hang_up()
            self.display.close()

    def _stop(self, interrupted: bool) -> None:
        """Ends the program: lets it end by itself unless the user is waiting, then asks, then insists."""
        self.hang_up()
        if interrupted:
            # Ctrl-C in a terminal reaches both sides, in a notebook only this one.
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGINT)
        try:
            self._drain(_POLITE_SECONDS / 2 if interrupted else _POLITE_SECONDS)
            return
        except subprocess.TimeoutExpired:
            self.process.terminate()
        try:
            self.process.wait(_POLITE_SECONDS / 2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _drain(self, seconds: float) -> None:
        """Takes in what the program still says, so that it is not stuck on a full pipe, until it ends."""
        import time

        deadline = time.monotonic() + seconds
        while self._open:
            rest = deadline - time.monotonic()
            if rest <= 0:
                break
            with contextlib.suppress(queue.Empty, Error):
                self._next(rest)
        self.process.wait(max(deadline - time.monotonic(), 0.01))


def _enlarge(descriptor: int) -> None:
    """Makes a pipe hold more, where the system allows it."""
    try:
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE)
    except (ImportError, AttributeError, OSError):
        pass
