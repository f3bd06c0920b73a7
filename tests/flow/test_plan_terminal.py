"""`crosslogic plan` on a real terminal: it asks, takes answers, draws as wide as that is, and colours if it may."""

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time

import pytest

from tests.flow.processes import CROSSLOGIC

pytestmark = pytest.mark.timeout(300)
COLUMNS = 58
COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3|4|9|10)\d[;m]")


def talk(*arguments: str, answers: tuple[str, ...] = (), **environment: str) -> tuple[str, int]:
    """All that a terminal of so many columns shows, and the exit code; each answer follows a question."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - another process
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "TERM")}
        os.execve(CROSSLOGIC, [str(CROSSLOGIC), *arguments], {**kept, "TERM": "xterm", **environment})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    shown, left, answered_at = "", list(answers), 0
    deadline_s = time.monotonic() + 240
    while time.monotonic() < deadline_s:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                read = os.read(terminal, 65536)
            except OSError:
                break
            if not read:
                break
            shown += read.decode(errors="replace")
        elif left and shown[answered_at:].rstrip(" ").endswith(("\n", "")) and "?" in shown[answered_at:]:
            os.write(terminal, (left.pop(0) + "\n").encode())
            answered_at = len(shown)
    _, status = os.waitpid(pid, 0)
    return shown.replace("\r\n", "\n"), os.waitstatus_to_exitcode(status)


def test_it_asks_what_would_change_the_plan_and_takes_i_dont_know() -> None:
    shown, code = talk("plan", "a chatbot", "--specification", answers=("300 people", "", "", ""), NO_COLOR="1")
    assert code == 0, shown
    assert "How many people" in shown
    assert re.search(r"\busers\s+300\b", shown)
    assert not COLOUR.search(shown)


def test_the_plot_fits_the_terminal_and_has_no_colour_codes() -> None:
    shown, code = talk(
        "plan", "a chatbot for 200 users on L40S or H100", "--no-ask", "--set", "slo.ttft_p95_ms=600", NO_COLOR="1"
    )
    assert code == 0, shown
    assert not COLOUR.search(shown)
    assert "Pareto front" in shown, shown
    drawn = shown[shown.index("E2E p95: #") :].splitlines()[:15]
    assert any("#" in line for line in drawn[1:])
    assert max(map(len, drawn)) <= COLUMNS
    assert "USD a month" in drawn[-1]


def test_notes_stand_out_where_the_terminal_has_colours() -> None:
    shown, code = talk("plan", "code completion on a FOOBAR9000 GPU for 20 users", "--no-ask", "--specification")
    assert code == 0, shown
    assert re.search(r"\x1b\[33m[^\x1b]*FOOBAR9000", shown)
