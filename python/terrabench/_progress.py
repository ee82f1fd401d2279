"""Shows the program's progress: one changing line in a terminal, a bar in a notebook, a line now and then elsewhere."""

from __future__ import annotations

import html
import json
import shutil
import sys
import time
from typing import Any, TextIO

_QUIET_SECONDS = 10.0
"""Least time between two lines about one step where lines cannot be replaced."""

_REDRAW_SECONDS = 0.1
"""Least time between two drawings of a bar."""

_BAR = 24
"""Characters of a full bar."""


class Step:
    """The state of a step, such as the extraction of a split."""

    def __init__(self, what: str, done: int, total: int, seconds: float) -> None:
        self.what, self.done, self.total, self.seconds = what, done, total, seconds

    @property
    def ended(self) -> bool:
        return self.done >= self.total

    def __str__(self) -> str:
        rate = self.done / self.seconds if self.seconds > 0 else 0.0
        text = f"{self.what}: {self.done}/{self.total} images, {rate:.1f}/s"
        if self.ended or rate == 0:
            return text
        return f"{text}, {_duration((self.total - self.done) / rate)} left"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def parse(line: str) -> Step | None:
    """Returns the step that a line of `--progress json` reports; `None` for any other line."""
    if not line.startswith('{"progress"'):
        return None
    try:
        found = json.loads(line)
        return Step(str(found["progress"]), int(found["done"]), int(found["total"]), float(found["seconds"]))
    except (ValueError, KeyError, TypeError):
        return None


class Display:
    """Shows nothing. The other displays derive from it."""

    def step(self, step: Step) -> None:
        """Shows how far a step is."""

    def note(self, line: str) -> None:
        """Shows a line that stays."""

    def close(self) -> None:
        """Ends what is being shown."""


class Lines(Display):
    """Plain lines, for logs."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.shown: dict[str, float] = {}

    def step(self, step: Step) -> None:
        now = time.monotonic()
        last = self.shown.setdefault(step.what, now)
        if step.ended:
            self.shown.pop(step.what)
        elif now - last < _QUIET_SECONDS:
            return
        else:
            self.shown[step.what] = now
        self.note(str(step))

    def note(self, line: str) -> None:
        _print(self.out, line + "\n")


class Terminal(Display):
    """A bar in the last line of a terminal."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.drawn = 0.0
        self.current = ""

    def step(self, step: Step) -> None:
        if step.ended:
            self.current = ""
            self.note(str(step))
            return
        now = time.monotonic()
        if now - self.drawn >= _REDRAW_SECONDS:
            self.drawn = now
            full = _BAR * step.done // max(step.total, 1)
            self.current = f"[{'#' * full}{'-' * (_BAR - full)}] {step}"
            self._draw()

    def note(self, line: str) -> None:
        _print(self.out, f"\r\x1b[K{line}\n")
        self._draw()

    def close(self) -> None:
        _print(self.out, "\r\x1b[K")
        self.current = ""

    def _draw(self) -> None:
        if self.current:
            # 0 in terminals that do not tell.
            width = shutil.get_terminal_size().columns or 80
            _print(self.out, f"\r\x1b[K{self.current[: width - 1]}")


class Notebook(Display):
    """A bar and the lines below it, in the output of a notebook's cell."""

    def __init__(self) -> None:
        import IPython.display as shown

        self.shown: Any = shown
        self.lines: list[str] = []
        self.current: Step | None = None
        self.drawn = 0.0
        self.handle: Any = self.shown.display(self.shown.HTML(""), display_id=True)

    def step(self, step: Step) -> None:
        if step.ended:
            self.current = None
            self.note(str(step))
            return
        self.current = step
        now = time.monotonic()
        if now - self.drawn >= _REDRAW_SECONDS:
            self.drawn = now
            self._draw()

    def note(self, line: str) -> None:
        self.lines.append(line)
        self._draw()

    def close(self) -> None:
        self.current = None
        self._draw()

    def _draw(self) -> None:
        parts = ["<pre style='margin:0'>" + html.escape("\n".join(self.lines)) + "</pre>"] if self.lines else []
        if self.current is not None:
            step = self.current
            parts.append(f"<progress value='{step.done}' max='{step.total}'></progress> {html.escape(str(step))}")
        self.handle.update(self.shown.HTML("".join(parts)))


def _print(out: TextIO, text: str) -> None:
    try:
        out.write(text)
        out.flush()
    except (OSError, ValueError):
        pass  # A closed standard error ends no run.


def display(wanted: bool | None) -> Display:
    """Returns the display for the place where Python runs; one that shows nothing if `wanted` is false."""
    if wanted is False:
        return Display()
    if _is_notebook():
        return Notebook()
    if sys.stderr is None:
        return Display()
    return Terminal(sys.stderr) if sys.stderr.isatty() else Lines(sys.stderr)


def _is_notebook() -> bool:
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
