"""The bar of all points moves with their tokens, and the time left that it shows is the time that passes."""

import io

import pytest
import torch

from sae_sweeps.runtime import progress
from sae_sweeps.runtime.progress import SweepProgress, Work, format_duration

TOKENS, EVALUATED, CHUNK, STEP = 4000, 1000, 500, 100
LOSS = torch.tensor(0.5)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


@pytest.fixture
def terminal(monkeypatch):
    """A terminal in place of the console."""
    console = type(progress.console)(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    monkeypatch.setattr(progress, "console", console)
    return console


def seconds_left(text: str) -> float:
    number, unit, _ = text.split(maxsplit=2)
    return float(number) * {"s": 1, "min": 60}[unit]


def train(clock, display, names, first=0):
    """Train points in turns: 10 s for a chunk of activations, 1 s for a step; evaluation is as fast as training.

    Yields after each chunk.
    """
    speed = CHUNK * len(names) / (10 + CHUNK // STEP * len(names))
    lines = {name: display.add_point(name) for name in names}
    for line in lines.values():
        line.start(first)
    for chunk in range(first, TOKENS, CHUNK):
        display.begin()
        clock.now += 10
        for name in names:
            for tokens in range(chunk + STEP, chunk + CHUNK + 1, STEP):
                clock.now += 1
                lines[name].show_step(tokens, TOKENS, LOSS, LOSS)
            if tokens == TOKENS:
                clock.now += EVALUATED / speed
                display.count_finished(name, failed=False)
        yield


def test_the_time_left_of_points_that_take_turns_is_the_time_that_passes(clock):
    """Each point's own speed, in its turn, would give a third of it. The model has been loaded before."""
    names = ["a", "b", "c"]
    display = SweepProgress(3, tokens=dict.fromkeys(names, TOKENS + EVALUATED))
    clock.now += 300
    shown = []
    for _ in train(clock, display, names):
        shown.append((clock.now, display.describe_time_left()))
    *before, (ended, last) = shown
    assert last == ""
    for now, text in before:
        assert text.endswith("left for all points")
        assert seconds_left(text) == pytest.approx(ended - now, rel=0.02, abs=31 if " min " in text else 1)


def test_what_was_done_before_takes_no_time(clock):
    """A point that an earlier command finished, and half of another: the bar begins there, the speed does not."""
    display = SweepProgress(2, tokens={"done": TOKENS + EVALUATED, "half": TOKENS + EVALUATED})
    display.count_finished("done", failed=False)
    assert display.describe_time_left() == ""
    shown = [(clock.now, display.describe_time_left()) for _ in train(clock, display, ["half"], TOKENS // 2)][:-1]
    for now, text in shown:
        assert seconds_left(text) == pytest.approx(clock.now - now, rel=0.02)


def test_a_failed_point_leaves_nothing_to_wait_for(clock):
    work = Work({"a": 100, "b": 100})
    work.begin()
    work.move("a", 0)
    clock.now += 10
    work.move("a", 50)
    assert work.describe_time_left() == "30 s left"
    work.finish("b", failed=True)
    assert (work.done, work.total) == (150, 200)
    assert work.describe_time_left() == "10 s left"
    work.finish("a", failed=True)
    assert work.describe_time_left() == ""


def test_the_bar_of_all_points_moves_with_tokens(clock, terminal):
    names = ["a", "b"]
    display = SweepProgress(2, tokens=dict.fromkeys(names, TOKENS + EVALUATED))
    seen = []
    with display.live():
        for _ in train(clock, display, names):
            task = display._bars.tasks[0]
            seen.append(task.percentage)
            assert "of 2 points finished" in task.fields["status"]
    assert seen == pytest.approx([10, 20, 30, 40, 50, 60, 70, 100])


def test_studies_are_counted(clock, terminal):
    display = SweepProgress(2, "studies")
    with display.live():
        display.count_finished(failed=True)
        task = display._bars.tasks[0]
        assert (task.completed, task.total) == (1, 2)
        assert task.fields["status"] == "0 of 2 studies finished, 1 failed"


def test_a_line_without_a_terminal_has_the_time_left_of_its_point_alone(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress, "console", type(progress.console)(width=200))
    line = SweepProgress(1).add_point("study")
    line.show_step(100, 1000, LOSS, LOSS, "directions")
    clock.now += 20
    line.show_step(300, 1000, LOSS, LOSS, "directions")
    assert "study: 300 of 1,000 directions  10 directions/s  loss 0.5000  l0 0.5  70 s left" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (119, "119 s"), (150, "2 min"), (7140, "119 min"), (7260, "2 h 1 min")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text
