"""Settings of the data set: which tokens count and where BOS stands, in the names of points and in errors."""

from dataclasses import asdict

import pytest

from sae_sweeps.config.differences import find_varying
from sae_sweeps.config.identity import select_stream_settings
from sae_sweeps.config.validation import find_problems
from tests.config.test_config import compose_name
from tests.conftest import composed


def test_the_excluded_tokens_name_a_point_unless_they_are_the_default():
    default = compose_name()
    assert compose_name("dataset.exclude=special") == default
    for alike in (["none", "null", "[]"], ["7", "[7]"], ["[7,8]"], ["of", "[of]"]):
        (name,) = {compose_name(f"dataset.exclude={spelled}") for spelled in alike}
        assert name != default
    streams = [select_stream_settings(composed(f"dataset.exclude={exclude}")) for exclude in ("special", "none", "7")]
    assert "exclude" not in streams[0]["dataset"]
    assert streams[1] != streams[2] != streams[0] != streams[1]
    configs = [asdict(composed(f"dataset.exclude={exclude}")) for exclude in ("special", "none")]
    assert find_varying(configs) == ["dataset.exclude"]


def test_where_bos_tokens_are_names_a_point_unless_it_is_the_default():
    default = compose_name()
    assert compose_name("dataset.bos=sequence") == default != compose_name("dataset.bos=document")
    sequence, document = (composed(f"dataset.bos={bos}") for bos in ("sequence", "document"))
    assert "bos" not in select_stream_settings(sequence)["dataset"]
    assert select_stream_settings(document)["dataset"]["bos"] == "document"
    assert (sequence.dataset.first_position, document.dataset.first_position) == (1, 0)
    assert find_varying([asdict(sequence), asdict(document)]) == ["dataset.bos"]


@pytest.mark.parametrize(
    ("words", "value"),
    [(["dataset.bos=both"], "both"), (["dataset.bos=document", "dataset.prepend_bos=false"], "document")],
)
def test_a_place_of_bos_tokens_that_cannot_be_is_refused(words, value):
    (problem,) = find_problems(composed(*words))
    assert str(problem).startswith(f"dataset.bos={value}: ")


@pytest.mark.parametrize("exclude", ["-1", "[0,-5]", "true", "[[0]]", "[0,null]", "1.5", "{a: 1}", "''"])
def test_what_cannot_be_a_token_is_refused(exclude):
    (problem,) = find_problems(composed(f"dataset.exclude={exclude}"))
    assert str(problem).startswith("dataset.exclude=")
    assert problem.fix == "dataset.exclude=special"
