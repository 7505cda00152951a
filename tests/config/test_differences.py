"""Texts that are passed on lose the folders of the machine, and nothing else."""

from dataclasses import asdict

import pytest

from sae_sweeps.config.differences import find_swept, format_value, shorten_paths, title_settings
from tests.conftest import composed

SHORTENED = {
    "/home/al/work/model": "work/model",
    "/home/al/my texts/a b.txt": "my texts/a b.txt",
    "~/work/deep/model": "deep/model",
    "../../al/deep/x": "deep/x",
    "sae_lens:/home/al/saes/mine": "sae_lens:saes/mine",
    "model.name=/home/al/models/m: there is no such folder. Fix: fetch it": (
        "model.name=models/m: there is no such folder. Fix: fetch it"
    ),
    "OSError: [Errno 28] No space left: '/home/al ice/runs/a/x.json'": "OSError: [Errno 28] No space left: 'a/x.json'",
    '["/home/al/b/c.txt", "/home/al/b/d.txt"]': '["b/c.txt", "b/d.txt"]',
    "read /home/al/b/c.txt, then (~/b/c/d).": "read b/c.txt, then (c/d).",
    "/home/al/a/x.txt: row 3: it is cut": "a/x.txt: row 3: it is cut",
}
KEPT = [
    *("google/gemma-2-2b", "texts/*.txt", "https://e.org/a/b/c", "hf://datasets/a/b/c", "1/2/3", "tok/s", "a / b"),
    *("blocks.3.hook_resid_pre", "</script></a/b/c>", "", "...", "first/topk-48/5", "TopK 48, k 4 (a/b)"),
]


@pytest.mark.parametrize("text", SHORTENED)
def test_of_a_path_the_last_two_parts_are_kept(text):
    assert shorten_paths(text) == SHORTENED[text]


@pytest.mark.parametrize("text", KEPT)
def test_text_that_is_no_path_is_unchanged(text):
    assert shorten_paths(text) == text


def test_values_are_shortened_at_any_depth():
    value = {"a": ["/x/y/z", ("/x/y/z", 1.5)], "b": {"/x/y/z": None, "c": True}}
    assert shorten_paths(value) == {"a": ["y/z", ["y/z", 1.5]], "b": {"/x/y/z": None, "c": True}}


def test_what_follows_from_other_settings_was_not_swept():
    """Matryoshka's coefficient of the auxiliary loss is another by default, and the target L0 of ReLU is k."""
    configs = [asdict(composed(f"sae={name}", f"k={k}")) for name in ("relu", "topk", "matryoshka") for k in (2, 3)]
    assert find_swept(configs) == ["k", "sae.architecture"]
    more = asdict(composed("sae=topk", "sae.aux_coefficient=1", "training.betas=[0.5,0.9]"))
    assert set(find_swept([*configs, more])) == {"k", "sae.architecture", "sae.aux_coefficient", "training.betas"}


def test_titles_are_last_parts_unless_two_share_them():
    names = ["model.name", "training.tokens", "evaluation.tokens", "k"]
    assert list(title_settings(names).values()) == ["model", "training.tokens", "evaluation.tokens", "k"]


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.001, "0.001"), (True, "true"), (["/a/b/c"], '["b/c"]'), ("/a/b/c", "b/c")]
)
def test_values_in_tables(value, text):
    assert format_value(value) == text
