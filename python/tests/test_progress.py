"""How the program's progress is shown."""

import io
import sys
import types

from terrabench import _progress
from terrabench._progress import Lines, Notebook, Step, Terminal, parse


def test_a_line_of_json_is_a_step_and_others_are_not():
    step = parse('{"progress":"m-eurosat test","done":40,"total":80,"seconds":2.0}')
    assert str(step) == "m-eurosat test: 40/80 images, 20.0/s, 2 s left"
    assert str(Step("x", 80, 80, 2.0)) == "x: 80/80 images, 40.0/s"
    assert str(Step("x", 0, 80, 0.0)) == "x: 0/80 images, 0.0/s"
    assert str(Step("x", 1, 7200, 1.0)) == "x: 1/7200 images, 1.0/s, 1 h 59 min left"
    for line in ["a note", '{"progress"', '{"progress":"x"}', '{"progress":"x","done":"a","total":1,"seconds":1}']:
        assert parse(line) is None


def test_a_log_gets_one_line_per_step():
    out = io.StringIO()
    lines = Lines(out)
    for done in range(0, 81, 10):
        lines.step(Step("x", done, 80, 1.0))
    lines.note("a note")
    assert out.getvalue() == "x: 80/80 images, 80.0/s\na note\n"


def test_a_terminal_replaces_its_last_line_and_keeps_notes(monkeypatch):
    monkeypatch.setattr(_progress, "_REDRAW_SECONDS", 0.0)
    out = io.StringIO()
    terminal = Terminal(out)
    terminal.step(Step("x", 40, 80, 1.0))
    terminal.note("a note")
    terminal.step(Step("x", 80, 80, 1.0))
    terminal.close()
    shown = out.getvalue()
    assert "[############------------] x: 40/80 images" in shown
    assert "\x1b[Ka note\n" in shown and "\x1b[Kx: 80/80 images, 80.0/s\n" in shown
    # A finished bar is not drawn again.
    assert shown.endswith("images, 80.0/s\n\r\x1b[K")


def test_a_notebook_shows_a_bar_and_escapes_text(monkeypatch):
    shown = []
    handle = types.SimpleNamespace(update=shown.append)
    display = types.SimpleNamespace(HTML=str, display=lambda *_, **__: handle)
    shell = types.SimpleNamespace(kernel=1)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell, display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    notebook = _progress.display(None)
    assert isinstance(notebook, Notebook)
    notebook.step(Step("<x>", 40, 80, 1.0))
    assert "<progress value='40' max='80'>" in shown[-1] and "&lt;x&gt;: 40/80" in shown[-1]
    notebook.step(Step("<x>", 80, 80, 1.0))
    notebook.close()
    assert "<progress" not in shown[-1] and "&lt;x&gt;: 80/80" in shown[-1]


def test_a_closed_standard_error_stops_nothing(monkeypatch):
    out = io.StringIO()
    out.close()
    Lines(out).note("a note")
    monkeypatch.setattr(sys, "stderr", None)
    _progress.display(None).note("a note")


def test_nothing_is_shown_on_request(capsys):
    display = _progress.display(False)
    display.step(Step("x", 80, 80, 1.0))
    display.note("a note")
    assert capsys.readouterr() == ("", "")
