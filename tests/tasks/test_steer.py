"""Task `steer` on a sweep: predictions with changed latents and meta-latents, the tables, and what is refused."""

import json

import pytest
import torch

from sae_sweeps.activations.source import load_source
from sae_sweeps.formats.reading import load_sae
from tests.conftest import GIVEN, composed
from tests.tasks.conftest import done, point

PROMPTS = "steer.prompts=[the people of a great,nation will keep]"
WORDS = "steer.words=[people,nation]"


def strongest(first, model_settings, prompt):
    """Return the SAE of a point, its folder, the activations of a prompt, and the latent that is strongest in them."""
    source = load_source(composed(*model_settings, "device=cpu"), torch.device("cpu"))
    folder = point(first, "topk-32")
    tokens_S = torch.tensor([source.model.bos, *source.model.encode([prompt])[0]])
    sae = load_sae(folder)
    x_SD = source.model.activations(tokens_S[None])[0]
    return source, sae, folder, tokens_S, x_SD, int(sae.encode(x_SD[1:]).amax(0).argmax())


def test_removing_a_latent_is_what_replacing_the_activations_gives(first, command, model_settings):
    prompt = "the people of a great"
    source, sae, folder, tokens_S, x_SD, latent = strongest(first, model_settings, prompt)
    ran = command("task=steer", f"sae={folder}", PROMPTS, WORDS, f"steer.remove=[{latent}]", *GIVEN)
    assert (ran.code, ran.err) == (0, "")
    assert "people" in ran.out
    (study,) = done(first, "steer")
    results = json.loads((study / "results.json").read_text())
    assert [one["prompt"] for one in results["prompts"]] == [prompt, "nation will keep"]
    z_SF = sae.encode(x_SD[1:])
    without_SF = z_SF.clone()
    without_SF[:, latent] = 0
    changed_SD = x_SD.clone()
    changed_SD[1:] += sae.decode(without_SF, x_SD[1:]) - sae.decode(z_SF, x_SD[1:])
    before_V = source.model.predict_next(tokens_S)
    after_V = source.model.predict_next(tokens_S, lambda acts: changed_SD)
    token = source.model.encode(["x people"])[0][len(source.model.encode(["x"])[0])]
    shown = results["prompts"][0]["words"]["people"]
    assert shown["before"] == pytest.approx(before_V[token].item(), rel=1e-4)
    assert shown["after"] == pytest.approx(after_V[token].item(), rel=1e-4)
    assert shown["after"] != shown["before"]
    assert results["prompts"][0]["kl"] > 0
    again = command("task=steer", f"sae={folder}", PROMPTS, WORDS, f"steer.remove=[{latent}]", *GIVEN)
    assert "already done" in again.err + again.out
    assert "people" in again.out


def test_meta_latents_are_changed_and_shown_in_the_report(first, command, model_settings):
    meta = done(first, "meta_sae")[0]
    prompt = "the people of a great"
    ran = command("task=steer", "name=first", PROMPTS, f"steer.meta={meta}", "steer.add=[0:3.5]", *GIVEN[1:])
    assert (ran.code, ran.err) == (0, "")
    (study,) = done(first, "steer")
    results = json.loads((study / "results.json").read_text())
    assert results["study"]["sae"]["point"] == json.loads((meta / "results.json").read_text())["study"]["sae"]["point"]
    assert "meta" not in results["study"]["settings"]
    assert results["prompts"][0]["kl"] > 0
    assert command("task=report", *GIVEN).code == 0
    page = (first / "report.html").read_text()
    assert 'id="steered"' in page
    assert "meta-latent 0 raised by 3.5" in page
    assert prompt in page


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([PROMPTS], ["steer.remove=[]: nothing is changed"]),
        (["steer.remove=[1]"], ["steer.prompts=[]: must be a list of texts"]),
        ([PROMPTS, "steer.remove=[32]"], ["steer.remove=32", "has 32 latents, from 0 to 31"]),
        ([PROMPTS, "steer.clamp=[3:1]", "steer.remove=[3]"], ["is changed twice"]),
        ([PROMPTS, "steer.clamp=[3:1,3:2]"], ["steer.clamp=[", "each latent once"]),
        ([PROMPTS, "steer.add=[three]"], ["steer.add=[", "LATENT:NUMBER"]),
        ([PROMPTS, "steer.remove=[-1]"], ["steer.remove=[-1]", "numbers of latents"]),
        ([PROMPTS, "steer.clamp=[1:inf]"], ["steer.clamp"]),
        ([PROMPTS, "steer.remove=[1]", "steer.of=[2]"], ["steer.of=[2]", "steer.meta=STUDY"]),
        ([PROMPTS, "steer.remove=[1]", "steer.positions=first"], ["must be one of all, last"]),
        ([PROMPTS, "steer.remove=[1]", "steer.meta=nowhere"], ["steer.meta=nowhere"]),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(first, command, words, parts):
    ran = command("task=steer", f"sae={point(first, 'topk-32')}", *words, *GIVEN)
    assert ran.code == 1
    errors = [line for line in ran.err.splitlines() if line.startswith("error")]
    assert len(errors) == 1, ran.err
    assert all(part in errors[0] for part in parts), errors
    assert not (first / "steer").exists()


def test_an_sae_must_be_named_where_there_are_several(first, command):
    ran = command("task=steer", PROMPTS, "steer.remove=[1]", *GIVEN)
    assert ran.code == 1
    assert "sweep first has 4" in ran.err
    assert "sae=outputs/SWEEP/POINT" in ran.err


def test_an_sae_is_no_meta_sae(first, command):
    folder = point(first, "topk-32")
    ran = command("task=steer", PROMPTS, "steer.remove=[1]", f"steer.meta={folder}", *GIVEN)
    assert ran.code == 1
    assert "is no meta-SAE" in ran.err


def test_removing_what_is_not_active_is_remarked_on(first, command, model_settings):
    _, sae, folder, _, x_SD, _ = strongest(first, model_settings, "the people of a great")
    quiet = int(sae.encode(x_SD[1:]).amax(0).argmin())
    prompt = "steer.prompts=[the people of a great]"
    ran = command("task=steer", f"sae={folder}", prompt, f"steer.remove=[{quiet}]", *GIVEN)
    assert ran.code == 0
    assert f"latent {quiet} is active in no prompt" in ran.err + ran.out
    (study,) = done(first, "steer")
    assert json.loads((study / "results.json").read_text())["metrics"]["kl_mean"] == pytest.approx(0, abs=1e-6)
