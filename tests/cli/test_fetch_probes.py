"""The data sets of sae-probes: pip fetches a tiny wheel, built here, from a folder."""

import csv
import io
import subprocess
import sys
import zipfile

import pyarrow as pa
import pytest

from sae_sweeps.activations.labelled_texts import find_probe_sets, read_set
from sae_sweeps.cli.fetch_probes import fetch
from sae_sweeps.config import wheel_models, wheel_probes
from sae_sweeps.config.studies import ProbeConfig
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.files import sha256
from sae_sweeps.runtime.places import PROJECT

TITLES = ["Dataset save name", "Data type"]
SETS = [
    ("cleaned_data/5_first.csv", "Binary Classification"),
    ("cleaned_data/6_more.csv", "Multiclass"),
    ("cleaned_data/7_a second.csv", "Binary Classification"),
]
TEXTS = [[f"text, {number}\nof two lines", number % 2 == 0] for number in range(120)]


def pack(rows) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return pa.Codec("zstd").compress(text.getvalue().encode(), asbytes=True)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with two data sets of two classes, in a folder that pip takes for its index."""
    file = tmp_path / "index" / "sae_probes-0.4.2-py3-none-any.whl"
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("sae_probes/__init__.py", "raise SystemExit('no code of a wheel is run')")
        archive.writestr(wheel_probes.MASTER, pack([TITLES, *SETS]))
        for name, _ in SETS:
            archive.writestr(f"sae_probes/data/{name}.zst", pack([["prompt", "target"], *TEXTS]))
        about = "sae_probes-0.4.2.dist-info/"
        metadata = "Metadata-Version: 2.1\nName: sae-probes\nVersion: 0.4.2\nRequires-Dist: not-in-any-index\n"
        archive.writestr(f"{about}METADATA", metadata)
        archive.writestr(f"{about}WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}RECORD", "")
    monkeypatch.setattr(wheel_models, "models_folder", lambda: tmp_path / "cache" / "models")
    monkeypatch.setattr(wheel_probes, "models_folder", lambda: tmp_path / "cache" / "models")
    monkeypatch.setattr(wheel_probes, "SHA256", sha256(file))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(file.parent))
    return file


def test_the_data_sets_of_two_classes_are_unpacked_and_read(wheel, tmp_path, monkeypatch, capsys):
    with pytest.raises(ConfigError, match=r"python -m sae_sweeps\.cli\.fetch_probes \(45 MB by pip\)"):
        find_probe_sets(ProbeConfig())
    folder = fetch()
    assert folder == tmp_path / "cache" / "probes" / "sae-probes-0.4.2"
    assert "2 data sets are saved" in capsys.readouterr().out
    found = find_probe_sets(ProbeConfig())
    assert list(found) == ["5_first", "7_a second"]
    one = read_set("7_a second", found["7_a second"], 5000, 58)
    assert one.texts == [text for text, _ in TEXTS]
    assert one.is_positive_T.tolist() == [label for _, label in TEXTS]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert fetch() == folder  # without pip
    assert [file.name for file in folder.parent.iterdir() if not file.name.endswith(".lock")] == [folder.name]


def test_another_wheel_is_refused_and_nothing_is_left_behind(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(wheel_probes, "SHA256", "0" * 64)
    with pytest.raises(ConfigError, match=r"the SHA-256 is .*, not 000"):
        fetch()
    monkeypatch.setattr(wheel_probes, "SHA256", sha256(wheel))
    monkeypatch.setattr(wheel_probes, "FOLDER", "elsewhere")
    with pytest.raises(ConfigError, match=r"does not contain the expected data sets .*elsewhere/5_first\.csv"):
        fetch()
    wheel.unlink()
    with pytest.raises(ConfigError, match=r"pip could not download sae-probes==0\.4\.2"):
        fetch()
    probes = tmp_path / "cache" / "probes"
    assert [file.name for file in probes.iterdir() if not file.name.endswith(".lock")] == []


def test_the_command_has_help():
    command = [sys.executable, "-m", "sae_sweeps.cli.fetch_probes", "--help"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0
    assert "45 MB" in done.stdout
