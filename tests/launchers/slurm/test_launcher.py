"""What is refused before anything is noted or submitted: folders that sbatch misreads, and clusters without arrays."""

from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from sae_sweeps.launchers.slurm import follow, submission
from sae_sweeps.launchers.slurm.launcher import SlurmLauncher
from sae_sweeps.launchers.slurm.settings import Settings
from sae_sweeps.sweep import Point, Sweep
from sae_sweeps.sweep.point_state import DONE, FAILED, INTERRUPTED, State
from tests.conftest import composed


def problems(**settings) -> list[str]:
    config = composed("task=train")
    for name, value in settings.items():
        setattr(config, name, value)
    return [str(error) for error in SlurmLauncher().find_problems(config)]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("output_root", f"/x/{text}") for text in ("a\\b", "a\nb", "a%b", "a\rb", "a\tb", "a\udc80")]
    + [("name", "50%"), ("name", "a\\b")],
)
def test_a_folder_that_sbatch_misreads_is_refused_in_one_line(slurm, setting, value):
    slurm.submits()
    (line,) = problems(**{setting: value})
    assert line.startswith(f"{setting}=")
    assert line.isprintable()
    assert "must not have" in line


@pytest.mark.parametrize("text", ["a b", "it's", 'q"uote', "$HOME", "#hash", "semi;colon", "é (1)", "[x]"])
def test_any_other_folder_is_taken(slurm, text):
    slurm.submits()
    assert problems(output_root=f"/x/{text}") == []


def test_a_cluster_without_arrays_is_refused_with_one_call(slurm):
    slurm.submits(largest=0)
    launcher, config = SlurmLauncher(), composed("task=train")
    for _ in range(3):
        (error,) = launcher.find_problems(config)
        assert str(error).startswith("hydra/launcher=slurm: the cluster allows no job arrays")
    assert slurm.calls("scontrol") == ["show config"]


def test_a_plan_asks_no_cluster(slurm):
    assert SlurmLauncher().find_problems(composed("task=plan")) == []


TEXTS = ["partition", "qos", "account", "gres", "constraint", "memory", "python"]
# line breaks, terminal sequences, marks of direction, and characters that nothing is drawn for
UNREADABLE = [
    "a\nb",
    "a\r\nb",
    "a\0b",
    "a\tb",
    "\x1b[2J",
    "a\u2028b",
    "a\u202eb",
    "a\u2067b",
    "a\u200fb",
    "a\u061cb",
    "a\u200bb",
]
UNREADABLE += ["a\xadb", "a\xa0b", "a\ufe0fb", "a\u3164b", "a\u034fb", "\ud800"]


@pytest.mark.parametrize("value", [*UNREADABLE, "a\\b", ""])
@pytest.mark.parametrize("setting", TEXTS)
def test_a_text_that_the_script_cannot_hold_is_refused(setting, value):
    if (setting, value) == ("python", "a\\b"):
        return  # a command of a shell, in which sbatch replaces nothing
    (error,) = Settings(**{setting: value}).find_problems()
    assert error.setting == f"hydra.launcher.{setting}"
    assert str(error).isprintable()


@pytest.mark.parametrize("value", UNREADABLE)
def test_no_line_of_shell_option_or_name_of_an_option_has_such_characters(value):
    if "\t" not in value:  # which begins many a line of shell
        (error,) = Settings(setup=["module load cuda", value]).find_problems()
        assert "must not have" in error.problem
    for sbatch in ({"comment": value}, {value: "x"}):
        (error,) = Settings(sbatch=sbatch).find_problems()
        assert str(error).isprintable()


@pytest.mark.parametrize("value", ["a\\b", ["a", "b"], {"a": 1}, [["a\nb"]], ("a",)])
def test_an_option_of_sbatch_has_one_value(value):
    (error,) = Settings(sbatch={"comment": value}).find_problems()
    assert error.setting == "hydra.launcher.sbatch.comment"


@pytest.mark.parametrize("key", ["a b", "", "-x", "a=b", 3, None, True, ("a",)])
def test_the_name_of_an_option_of_sbatch_is_a_word(key):
    (error,) = Settings(sbatch={key: "x", "nice": 3}).find_problems()
    assert "is no option of sbatch" in error.problem


@pytest.fixture
def waiting(monkeypatch):
    """A launcher that waits, whose jobs have ended as follows, and (point, reason) for each point that it ends."""
    states = {"a": State(DONE), "b": State(FAILED, "the loss is inf"), "c": State(INTERRUPTED, None)}
    launcher, ended = SlurmLauncher(wait=True), []
    monkeypatch.setattr(submission, "submit", lambda *_: submission.Submitted([], [], {}, 0, 0))
    monkeypatch.setattr(follow, "follow", lambda _: SimpleNamespace(points=states, follow_ups={}))
    launcher.end_job = lambda point, reason: ended.append((point.name, reason))
    return launcher, ended


def test_points_end_as_their_folders_say_after_the_wait(waiting, tmp_path):
    launcher, ended = waiting
    points = [Point(composed(), tmp_path / name) for name in "abc"]
    assert launcher.waits
    assert not launcher.dispatch(Sweep(tmp_path), points, [])
    assert ended == [("a", None), ("b", "the loss is inf"), ("c", "interrupted")]
    assert launcher.dispatch(Sweep(tmp_path), points[:1], [])


def test_ctrl_c_ends_a_wait_and_the_command_if_the_sweeper_needs_the_results(waiting, tmp_path, monkeypatch):
    launcher, ended = waiting
    points = [Point(composed(), tmp_path / "a")]

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(follow, "follow", interrupt)
    assert launcher.dispatch(Sweep(tmp_path), points, [])
    launcher.config = OmegaConf.create({"hydra": {"sweeper": {"_target_": "hydra_plugins.some.Optimiser"}}})
    with pytest.raises(KeyboardInterrupt):
        launcher.dispatch(Sweep(tmp_path), points, [])
    assert ended == []
