"""What is refused before anything is noted or submitted: folders that sbatch misreads, and clusters without arrays."""

import pytest

from sae_sweeps.launchers.slurm.launcher import SlurmLauncher
from sae_sweeps.launchers.slurm.settings import Settings
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


@pytest.mark.parametrize("setting", ["partition", "qos", "account", "gres", "constraint"])
@pytest.mark.parametrize("value", ["a\nb", "a\\b", ""])
def test_a_text_that_the_script_cannot_hold_is_refused(setting, value):
    (error,) = Settings(**{setting: value}).find_problems()
    assert error.setting == f"hydra.launcher.{setting}"
    assert str(error).isprintable()


@pytest.mark.parametrize(("key", "value"), [("a b", "x"), ("a\nb", "x"), ("comment", "a\nb"), ("comment", "a\\b")])
def test_an_option_that_the_script_cannot_hold_is_refused(key, value):
    (error,) = Settings(sbatch={key: value}).find_problems()
    assert str(error).isprintable()
