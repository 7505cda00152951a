"""Names of sweeps, projects and artifacts that a folder or W&B cannot take."""

import pytest

from sae_sweeps.config.names import find_names_problem, find_project_problem, shorten, to_artifact_name


@pytest.mark.parametrize("name", ["a", "2026_11_26", "a b", "a=b", "été", "it's", "a%b", "x" * 255, "12:30", "[x]"])
def test_a_name_that_a_folder_takes_is_valid(name):
    assert find_names_problem(name, "train") is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("", "folder name"),
        ("..", "folder name"),
        ("a/b", "folder name"),
        ("-x", "begin with -"),
        (".x", "hidden"),
        (" a", "blank"),
        ("a ", "blank"),
        ("a\nb", r"'\n'"),
        ("a\x07", r"'\x07'"),
        ("a\u200bb", r"'\u200b'"),
        ("a\udc80", r"'\udc80'"),
        ("x" * 256, "255 bytes"),
        ("é" * 128, "256"),
        ("a,b", "comma"),
    ],
)
def test_a_name_that_a_folder_cannot_take_has_a_reason(name, part):
    assert part in str(find_names_problem(name, "train"))
    assert name == "a,b" or part in str(find_names_problem(f"{name},b" if name else ",b", "report"))


def test_a_report_takes_several_names():
    assert find_names_problem("a,b", "report") is None


@pytest.mark.parametrize("project", [*(f"a{letter}b" for letter in "/\\#?%:"), "", "  ", "x" * 129, "a\tb"])
def test_a_project_that_wandb_refuses_has_a_reason(project):
    assert find_project_problem(project)


@pytest.mark.parametrize("project", ["sae-sweeps", "2026_11", "a b", "x" * 128])
def test_a_project_that_wandb_takes_has_none(project):
    assert find_project_problem(project) is None


def test_a_long_name_is_shortened_with_a_hash():
    assert shorten("x" * 128) == "x" * 128
    first, second = shorten("x" * 200), shorten("x" * 201)
    assert len(first) == len(second) == 128
    assert first != second


def test_the_name_of_an_artifact_has_only_letters_that_wandb_takes():
    assert to_artifact_name("first.a_b-c") == "first.a_b-c"
    assert to_artifact_name("a b").startswith("a-b-")
    assert to_artifact_name("a b") != to_artifact_name("a=b")
    assert len(to_artifact_name("é" * 300)) <= 128
