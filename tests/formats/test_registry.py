"""The table of formats agrees with the names that the command accepts and with what a format has to define."""

from pathlib import Path

import pytest

from sae_sweeps.config.tasks import EXPORTS
from sae_sweeps.formats.registry import FORMATS, READERS, WRITERS


def test_the_command_accepts_exactly_the_formats_that_are_written():
    assert tuple(WRITERS) == EXPORTS


def test_every_format_is_read_or_written():
    assert FORMATS.keys() == READERS.keys() | WRITERS.keys()


@pytest.mark.parametrize("name", READERS)
def test_a_reader_names_its_files_and_finds_nothing_in_an_empty_folder(name, tmp_path):
    assert READERS[name].FILES
    assert all(Path(file).name == file for file in READERS[name].FILES)
    assert not READERS[name].is_at(tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_shows_how_its_library_loads_the_folder(name):
    assert "('out/sae'" in WRITERS[name].load.format(folder=repr("out/sae"))
