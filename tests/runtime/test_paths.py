"""`~` and environment variables in paths, names that stay in a folder, and characters that cannot be seen."""

import copy
import dataclasses
import os
import pwd
import re

import pytest

from sae_sweeps.config.conversion import PATHS
from sae_sweeps.config.schema import get_setting
from sae_sweeps.config.validation import find_problems
from sae_sweeps.runtime.errors import ConfigError
from sae_sweeps.runtime.paths import (
    expand,
    find_control,
    find_hidden,
    find_name_problem,
    find_relative_problem,
    join,
    place,
    shorten_name,
)
from tests.conftest import composed


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.delenv("NOWHERE", raising=False)
    (tmp_path / "$NOWHERE").mkdir()
    (tmp_path / "~").mkdir()


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("~/runs", "/home/me/runs"),
        ("~", "/home/me"),
        ("~root/x", f"{pwd.getpwnam('root').pw_dir}/x"),
        ("$SCRATCH/runs", "/scratch/runs"),
        ("/data/run_$SCRATCH", "/data/run_/scratch"),
        ("sae_lens:~/sae", "sae_lens:/home/me/sae"),
        ("$NOWHERE", "$NOWHERE"),  # a folder of this name exists
        ("a~b", "a~b"),
        ("./~/x", "./~/x"),
        ("cost$", "cost$"),
        ("$5", "$5"),
        ("gpt2", "gpt2"),
    ],
)
def test_a_path_is_expanded(path, expanded):
    assert expand(path, "output_root") == expanded


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("~nosuchuser/model", "there is no user nosuchuser"),
        ("$NOWHERE/x", "variable NOWHERE is not set"),
        ("/a/${NOWHERE}".replace("{", "").replace("}", ""), "variable NOWHERE is not set"),
    ],
)
def test_a_path_that_cannot_be_expanded_is_one_line(path, part):
    with pytest.raises(ConfigError, match=part) as caught:
        expand(path, "model.name")
    assert str(caught.value).startswith(f"model.name={path}: ")


def test_an_unknown_home_is_one_line(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    with pytest.raises(ConfigError, match="the home folder is not known"):
        expand("~/runs", "output_root")


def test_every_path_setting_is_expanded():
    config = composed(
        "output_root='~/runs'",
        "model.name='~/m'",
        "dataset=text",
        "dataset.files=['~/a/*.txt','$SCRATCH/b']",
        "activations.cache='$SCRATCH/c'",
        "export.folder='~/e'",
        "saved='sae_lens:~/s'",
        "small='~/t'",
        "large='$SCRATCH/u'",
    )
    assert (config.output_root, config.model.name) == ("/home/me/runs", "/home/me/m")
    assert config.dataset.files == ["/home/me/a/*.txt", "/scratch/b"]
    assert (config.activations.cache, config.export.folder) == ("/scratch/c", "/home/me/e")
    assert (config.saved, config.small, config.large) == ("sae_lens:/home/me/s", "/home/me/t", "/scratch/u")


@pytest.mark.parametrize("name", ["a", "blocks.3.hook_resid_post", "été", "it's", "a b", "a:b", "x" * 255])
def test_a_name_stays_in_its_folder(tmp_path, name):
    assert find_name_problem(name) is None
    assert join(tmp_path, name, "inner") == tmp_path / name / "inner"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("", "is no name of a file or folder"),
        (".", "is no name"),
        ("..", "is no name"),
        ("../x", "must be one name, without /"),
        ("/x", "must be one name"),
        ("a/b", "must be one name"),
        ("a\\b", "must be one name"),
        ("a\0b", "must not contain '\\x00'"),
        ("a\nb", "must not contain '\\n'"),
        ("a\x1b[2J", "must not contain '\\x1b'"),
        ("a\udc80", "must not contain '\\udc80'"),
        ("x" * 256, "must be at most 255 bytes long, but has 256"),
        ("é" * 128, "must be at most 255 bytes long, but has 256"),
    ],
)
def test_a_name_that_leaves_the_folder_or_cannot_be_seen_is_refused(tmp_path, name, part):
    with pytest.raises(ValueError, match=re.escape(part)) as refused:
        join(tmp_path, "sae", name)
    assert str(refused.value).isprintable()
    with pytest.raises(ConfigError) as refused:
        place(tmp_path, name, "export.folder")
    assert str(refused.value).startswith(f"export.folder={tmp_path}: ")


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path):
    for folder in ("root", "root/inner", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "root" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "in").symlink_to(tmp_path / "root" / "inner")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    with pytest.raises(ValueError, match="is a link that leads out of"):
        join(tmp_path / "root", "out")
    with pytest.raises(ValueError, match="is a link that leads out of"):
        join(tmp_path / "root", "out", "new")
    for root in ("root", "link"):
        assert join(tmp_path / root, "in") == tmp_path / root / "in"


@pytest.mark.parametrize("path", ["", "a", "a/b.json", "a/b/"])
def test_a_path_inside_a_folder_is_taken(path):
    assert find_relative_problem(path) is None


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "a/../../b", "a//b", "a/\0"])
def test_a_path_out_of_a_folder_is_refused(path):
    assert find_relative_problem(path)


def test_a_long_name_is_cut_between_letters():
    assert shorten_name("x" * 255) == "x" * 255
    assert shorten_name("é" * 200, "-0a1b") == "é" * 125 + "-0a1b"


# marks and fillers of all kinds: bidirectional, joiners, selectors, blanks
UNSEEN = [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x61C, 0x2060, 0xFEFF]
UNSEEN += [
    0xAD,
    0xA0,
    0x2028,
    0x2029,
    0x85,
    0x7F,
    0x34F,
    0x115F,
    0x1160,
    0x3164,
    0xFFA0,
    0x2800,
    0xFE0F,
    0xE0100,
    0xE0041,
]


@pytest.mark.parametrize("code", UNSEEN, ids=hex)
def test_a_character_that_cannot_be_seen_is_found(code):
    assert find_hidden(f"a{chr(code)}b") == ascii(chr(code))


@pytest.mark.parametrize("text", ["", "plain", "été", "日本語", "a b", "x=1;y#%$'\"", "क्षि"])
def test_a_text_that_can_be_seen_has_nothing_hidden(text):
    assert find_hidden(text) is None
    assert find_control(text) is None


@pytest.fixture(scope="module")
def config():
    return composed("task=plan")


@pytest.mark.parametrize("code", [0, 9, 10, 13, 27, 0x7F, 0x85, 0x2028, 0x202E, 0x2066, 0x200F, 0x61C], ids=hex)
@pytest.mark.parametrize("setting", PATHS)
def test_no_path_may_control_a_terminal(config, setting, code):
    changed, value = copy.deepcopy(config), f"a{chr(code)}b"
    group, _, name = setting.rpartition(".")
    holder = get_setting(changed, group) if group else changed
    setattr(holder, name, ["a", value] if setting == "dataset.files" else value)
    (error,) = [error for error in find_problems(changed) if "control character" in error.problem]
    assert error.setting == setting
    assert ascii(chr(code)) in str(error)


def test_a_path_may_have_a_joiner(config):
    """Persian words have them, and file names are words."""
    changed = dataclasses.replace(config, output_root="/\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645")
    assert not [error for error in find_problems(changed) if error.setting == "output_root"]
