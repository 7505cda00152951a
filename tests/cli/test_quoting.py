"""The value of a text setting reaches the configuration as it was typed, or Hydra refuses it."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st

from sae_sweeps.cli.arguments import rewrite_arguments
from sae_sweeps.cli.quoting import FUNCTION, QUOTED, split_values
from sae_sweeps.config.commands import format_command, format_setting

TYPED = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=20)
TRICKY = st.text("a1_0.eE+-'\"\\,()[]{}=: $~\n#@%truenl", min_size=1, max_size=12)


def read(*arguments: str):
    """The value that Hydra reads for the last of these arguments."""
    return OverridesParser.create().parse_override(rewrite_arguments(arguments)[-1])


@pytest.mark.parametrize("setting", ["name", "dataset.text_column", "tracking.project", "hydra.launcher.account"])
@pytest.mark.parametrize(
    "text",
    [
        "2026_11_26",
        "1e5",
        "007",
        "true",
        "1.50",
        "-3",
        ".5",
        "inf",
        "0x10",
        "12:30",
        "a b",
        "a=b",
        "it's",
        'a"b',
        "(x)",
        "a(b",
        "[x]",
        "{x: 1}",
        "~/x",
        "a\\b",
        "a\\",
        "#1",
        "x@y",
        "50%",
        "été",
        " a",
        "a ",
        "$HOME",
        "run(1)",
        "1_000",
    ],
)
def test_text_arrives_as_typed(setting, text):
    override = read(f"{setting}={text}")
    assert not override.is_sweep_override()
    assert override.value() == text


@given(TYPED | TRICKY)
def test_any_text_arrives_as_typed_or_is_refused(text):
    try:
        override = read(f"name={text}")
    except HydraException:
        assert len(split_values(text)) > 1 or FUNCTION.fullmatch(text)
        return
    is_syntax = QUOTED.fullmatch(text) or override.is_sweep_override() or FUNCTION.fullmatch(text)
    assert is_syntax or override.value() == text


@given(TYPED | TRICKY)
def test_any_text_of_a_launcher_setting_arrives_as_typed(text):
    override = read(f"hydra.launcher.partition={text}")
    assert QUOTED.fullmatch(text) or override.value() == (None if text.lower() == "null" else text)


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("name=a,b", ["a", "b"]),
        ("name=1_0, 2e3,'x,y'", ["1_0", "2e3", "x,y"]),
        ("dataset.text_column=it's,a=b", ["it's", "a=b"]),
        ("name=choice(007,a b)", ["007", "a b"]),
        ("k=1_0,2", [10, 2]),
    ],
)
def test_commas_still_sweep(argument, values):
    parser = OverridesParser.create()
    words = read("-m", argument).sweep_string_iterator()
    assert [parser.parse_override(f"x={word}").value() for word in words] == values


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("model.aliases=[1_0, gpt2]", ["1_0", "gpt2"]),
        ("dataset.files=[a*.txt,2024_01]", ["a*.txt", "2024_01"]),
        ("dataset.files=[ab]*.txt", "[ab]*.txt"),
        ("dataset.files=x[1].txt", "x[1].txt"),
        (
            "hydra.launcher.setup=[module load cuda,export X=1,echo $(date)]",
            ["module load cuda", "export X=1", "echo $(date)"],
        ),
        ("+hydra.launcher.sbatch.reservation=1_000", "1_000"),
        ("+hydra.launcher.sbatch.mail-type=END,FAIL", "END,FAIL"),
        ("+hydra.launcher.sbatch.exclusive=true", True),
        ("hydra.launcher.sbatch={nice: 1_0, exclusive: true}", {"nice": "1_0", "exclusive": True}),
        ("hydra.launcher.account=null", None),
        ("hydra.launcher.account='null'", "null"),
        ("name='a,b'", "a,b"),
        ("model.name=${k}_x", "${k}_x"),
        ("name=", ""),
    ],
)
def test_lists_quotes_null_and_interpolations_keep_their_meaning(argument, value):
    assert read(argument).value() == value


@given(TYPED | TRICKY, TYPED | TRICKY)
def test_a_printed_command_is_read_back_by_a_shell_and_hydra(name, root):
    words = shlex.split(format_command("status", name, f"/x/{root}"))
    assert words[:3] == ["python", "launch.py", "task=status"]
    for word, value in zip(words[3:], [name, f"/x/{root}"], strict=True):
        assert OverridesParser.create().parse_override(word).value() == value
        assert read(word).value() == value


@given(st.lists(TYPED | TRICKY, min_size=1, max_size=3))
def test_a_printed_list_is_read_back(texts):
    (word,) = shlex.split(format_setting("model.aliases", texts))
    assert read(word).value() == texts


def test_hydra_alone_refuses_what_the_quotes_allow():
    with pytest.raises(HydraException):
        OverridesParser.create().parse_override("name=a=b")
