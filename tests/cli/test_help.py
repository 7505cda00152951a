"""--help: every setting that a person sets, with its meaning and the value of the command, and nothing else."""

import re
import subprocess
import sys

import pytest

from sae_sweeps.cli.help import print_help, wants_help
from sae_sweeps.config.fields import list_settings
from sae_sweeps.config.reference import INNER, list_groups, list_launcher_settings
from sae_sweeps.config.saes import SAE_SCHEMAS
from sae_sweeps.launchers.slurm.settings import Settings
from sae_sweeps.runtime.places import PROJECT


@pytest.fixture
def show(capsys):
    """A function that returns the help for some arguments."""

    def run(*arguments: str) -> str:
        print_help([*arguments, "--help"])
        return capsys.readouterr().out

    return run


def shown_values(text: str) -> dict[str, str]:
    return dict(re.findall(r"^  ([a-z0-9_./]+)=(\S*)", text, flags=re.MULTILINE))


def test_every_setting_is_listed_once_with_a_meaning():
    listed = [setting for name in SAE_SCHEMAS for group in list_groups(name) for setting in group.settings]
    assert {setting.name for setting in listed} == {
        name for name, _ in list_settings() if not any(name == inner or name.startswith(f"{inner}.") for inner in INNER)
    }
    assert [setting.name for setting in listed if len(setting.meaning.split()) < 2] == []
    for architecture in SAE_SCHEMAS:
        names = [setting.name for group in list_groups(architecture) for setting in group.settings]
        assert len(names) == len(set(names))


def test_every_setting_of_slurm_has_a_meaning():
    listed = [setting.name for setting, _ in list_launcher_settings("slurm")]
    assert listed == [f"hydra.launcher.{name}" for name in vars(Settings())]


def test_the_values_are_those_of_the_command(show):
    values = shown_values(show("sae=jumprelu", "training=paper", "k=7", "then=[report]"))
    expected = {"k": "7", "training.lr": "0.0003", "training.tokens": "1000000000", "then": "[report]"}
    assert expected.items() <= values.items()
    assert values["sae.bandwidth"] == "0.001"
    assert "sae.aux_latents" not in values  # of another architecture
    assert not any(name.startswith(INNER) for name in values)


def test_of_a_sweep_the_first_values_are_shown(show):
    values = shown_values(show("-m", "sae=topk,relu", "k=3,4", "hydra/launcher=slurm", "hydra.launcher.time=60"))
    assert (values["k"], values["hydra.launcher.time"]) == ("3", "60")
    assert "sae.aux_latents" in values


def test_groups_of_ones_own_are_listed(show, tmp_path):
    (tmp_path / "my conf" / "model").mkdir(parents=True)
    (tmp_path / "my conf" / "model" / "mine.yaml").write_text("name: here\nhook: blocks.1.hook_resid_pre\n")
    (tmp_path / "my conf" / "hydra" / "launcher").mkdir(parents=True)
    slurm = (PROJECT / "conf" / "hydra" / "launcher" / "slurm.yaml").read_text()
    cluster = slurm.replace("partition: null", "partition: a100")
    (tmp_path / "my conf" / "hydra" / "launcher" / "mine.yaml").write_text(cluster)
    for flag in (["--config-dir", f"{tmp_path}/my conf"], [f"--config-dir={tmp_path}/my conf"]):
        text = show(*flag, "model=mine", "hydra/launcher=mine")
        assert shown_values(text)["hydra.launcher.partition"] == "a100"
        assert "mine" in text.partition("\n  model ")[2].partition("\n  sae ")[0].replace(",", "").split()
        assert shown_values(text)["model.name"] == "here"


def test_the_commands_are_those_of_the_user(show, monkeypatch):
    monkeypatch.setenv("SAE_SWEEPS_COMMAND", "apptainer exec x.sif sae-sweeps")
    text = show()
    assert "  apptainer exec x.sif sae-sweeps -m sae=batchtopk,topk,jumprelu" in text
    assert "launch.py" not in text


def test_lines_fit_a_narrow_terminal(show, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    settings = show().partition("Settings (")[2].partition("Flags:")[0]
    assert max(map(len, settings.splitlines())) <= 80


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_asked_for_anywhere(word):
    assert wants_help(["-m", word, "k=3"])
    assert not wants_help(["--hydra-help", "name=help"])


def test_help_imports_no_torch():
    script = "import sys; from sae_sweeps.cli import app; app.print_help([]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["False"], done.stderr
