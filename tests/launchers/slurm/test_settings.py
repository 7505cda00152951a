"""The settings of hydra/launcher=slurm: times as sbatch reads them, and what is refused."""

import pytest

from sae_sweeps.launchers.slurm.settings import Settings, parse_minutes


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        (90, 90),
        ("90", 90),
        ("90:30", 90.5),
        ("1:30:00", 90),
        ("100:00:30", 6000.5),
        ("2-0", 2880),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("1-12:30:30", 2190.5),
        ("00:05:00", 5),
    ],
)
def test_a_time_is_parsed_as_sbatch_parses_it(time, minutes):
    assert parse_minutes(time) == minutes


@pytest.mark.parametrize("time", [None, "", "1h", "two", "1:2:3:4", "1-", "-1", "1-2-3", "4:", 1.5, "1 2"])
def test_text_that_is_not_a_time_has_no_minutes(time):
    assert parse_minutes(time) is None


def test_the_defaults_have_no_problems():
    assert Settings().find_problems() == []


@pytest.mark.parametrize(
    "given",
    [
        {"time": "4:00:00", "warning": 600},
        {"time": 3, "warning": 120},
        {"cpus": None, "gres": None, "memory": 4000},
        {"max_points": 1, "max_memory": 0.5, "parallel": 1, "wait": True},
        {"sbatch": {"mail-user": "me@lab.org", "exclusive": True}},
    ],
)
def test_good_settings_are_not_refused(given):
    assert Settings(**given).find_problems() == []


@pytest.mark.parametrize(
    ("setting", "value", "part"),
    [
        ("max_points", 0, "whole number from 1"),
        ("max_points", "few", "whole number from 1"),
        ("max_memory", 0, "GiB above 0"),
        ("cpus", 0, "whole number from 1"),
        ("cpus", 2.5, "whole number from 1"),
        ("cpus", "two", "whole number from 1"),
        ("parallel", 0, "whole number from 1"),
        ("wait", "yes", "true or false"),
        ("warning", 0, "seconds from 1"),
        ("warning", "2 min", "seconds from 1"),
        ("setup", "module load cuda", "list of shell lines"),
        ("setup", ["module load cuda", 3], "list of shell lines"),
        ("sbatch", "nice=1", "must be options of sbatch with values"),
        ("partition", ["a", "b"], "must be text"),
        ("time", "tomorrow", "must be a time that Slurm understands"),
        ("time", 2, "must be at least a minute longer than hydra.launcher.warning=120 s"),
        ("time", "2:59", "must be at least a minute longer than hydra.launcher.warning=120 s"),
    ],
)
def test_a_bad_setting_is_one_error_that_names_it(setting, value, part):
    (error,) = Settings(**{setting: value}).find_problems()
    assert (error.setting, error.value) == (f"hydra.launcher.{setting}", value)
    assert part in str(error)


REFUSED = ["array", "signal", "requeue", "open-mode", "open_mode", "job_name", "dependency", "outp", "tim"]


@pytest.mark.parametrize("key", REFUSED)
def test_an_option_that_the_launcher_sets_is_refused(key):
    (error,) = Settings(sbatch={"nice": 100, key: "x"}).find_problems()
    problem = "must not be given here, because the launcher sets this option"
    assert str(error).startswith(f"hydra.launcher.sbatch.{key}=x: {problem}")


def test_every_bad_setting_is_named_at_once():
    found = Settings(cpus=0, parallel=0, wait=1, warning=0, time="soon", sbatch={"array": 1}).find_problems()
    names = [error.setting.removeprefix("hydra.launcher.") for error in found]
    assert names == ["cpus", "parallel", "wait", "warning", "time", "sbatch.array"]
