"""Task `saebench` on a sweep: one pass for all SAEs, its files, what is resumed, the report, and what is refused."""

import json
import stat
import sys
from pathlib import Path

import pytest
import torch

from sae_sweeps.evaluation import saebench
from sae_sweeps.formats.reading import load_sae
from sae_sweeps.formats.saebench_results import CATEGORIES, OF_LATENTS, read_metrics
from tests.conftest import GIVEN
from tests.tasks.conftest import done

SMALL = [
    "saebench.batch_sequences=4",
    "saebench.reconstruction_batches=2",
    "saebench.sparsity_batches=3",
]
ARGUMENTS = ["task=saebench", *GIVEN, *SMALL]
PEER = """#!{python}
import json, sys
if sys.argv[1] == "-c":  # whether the package is there
    sys.exit(0)
request = json.load(open(sys.argv[3]))
if sys.argv[2] == "check":
    {check}
    print("a line of a library")
    print(json.dumps({{"versions": {{"sae-bench": "0.6.0"}}}}))
else:
    cfg = json.load(open(request["sae"] + "/cfg.json"))
    assert cfg["metadata"]["hook_layer"] == 1, cfg
    {run}
    metrics = {{"mean": {{"mean_absorption_fraction_score": 0.25, "mean_num_split_features": float("nan")}}}}
    content = {{"eval_type_id": request["eval"] + "_first_letter", "eval_result_metrics": metrics}}
    with open(request["output"] + "/" + request["name"] + "_custom_sae_eval_results.json", "w") as file:
        file.write(json.dumps(content).replace("NaN", "-1"))
"""


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def make_peer(folder: Path, check: str = "pass", run: str = "pass") -> Path:
    """Write a stand-in for a Python with sae-bench, which answers as the driver does."""
    file = folder / "python-with-sae-bench"
    file.write_text(PEER.format(python=sys.executable, check=check, run=run))
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def test_all_saes_are_measured_in_one_pass_and_not_again(first, command, monkeypatch):
    passes, measure = [], saebench.measure_core
    monkeypatch.setattr(
        "sae_sweeps.tasks.saebench.measure_core",
        lambda model, saes, *more: passes.append(len(saes)) or measure(model, saes, *more),
    )
    ran = command(*ARGUMENTS)
    assert (ran.code, ran.err) == (0, "")
    assert passes == [4]
    found = done(first, "saebench")
    assert len(found) == 4
    kept = {folder: (folder / "results.json").read_bytes() for folder in found}
    lost = found[1]
    (lost / "results.json").unlink()
    ran = command(*ARGUMENTS)
    assert (ran.code, ran.err) == (0, "")
    assert passes == [4, 1]
    assert ran.out.count("already done") == 3
    again = results(lost)
    assert again["metrics"] == json.loads(kept[lost])["metrics"]
    assert {folder: (folder / "results.json").read_bytes() for folder in found if folder != lost} == {
        folder: content for folder, content in kept.items() if folder != lost
    }


def test_saes_that_do_not_fit_into_memory_have_passes_of_their_own(first, command, monkeypatch):
    passes, measure = [], saebench.measure_core
    monkeypatch.setattr(
        "sae_sweeps.tasks.saebench.measure_core",
        lambda model, saes, *more: passes.append(len(saes)) or measure(model, saes, *more),
    )
    monkeypatch.setattr(
        "sae_sweeps.tasks.saebench.free_bytes", lambda device: 30_000
    )  # the SAEs have 4500 and 6700 bytes
    assert command(*ARGUMENTS).code == 0
    assert passes == [3, 1]
    assert len(done(first, "saebench")) == 4


def test_the_file_has_saebenchs_layout_and_the_numbers_of_results_json(first, command):
    assert command(*ARGUMENTS).code == 0
    for folder in done(first, "saebench"):
        own, (file,) = results(folder), folder.glob("*_eval_results.json")
        content = json.loads(file.read_text())
        point = own["study"]["sae"]["point"]
        assert file.name == f"first_{point[:-9]}_eval_results.json"
        assert file.name in own["files"]
        assert content["eval_type_id"] == "core"
        categories = content["eval_result_metrics"]
        assert set(categories) == {*CATEGORIES, "token_stats"}
        shown = {name: value for metrics in categories.values() for name, value in metrics.items()}
        tokens = {
            f"total_tokens_eval_{part}": 16 * 4 * n for part, n in (("reconstruction", 2), ("sparsity_variance", 3))
        }
        assert {name: shown.pop(name) for name in tokens} == tokens
        assert {name: value for name, value in own["metrics"].items() if name not in ("nmse", "fvu")} == shown
        sae = load_sae(first / point)
        assert len(content["eval_result_details"]) == sae.dict_size
        for index, row in enumerate(content["eval_result_details"]):
            assert set(row) == {"index", *OF_LATENTS}
            assert row["index"] == index
        density = torch.tensor([row["feature_density"] for row in content["eval_result_details"]])
        assert density.sum().item() == pytest.approx(own["metrics"]["l0"], rel=1e-5)
        dead = [row for row in content["eval_result_details"] if row["feature_density"] == 0]
        assert all(row["consistent_activation_heuristic"] == -1 for row in dead)
        assert content["eval_config"]["batch_size_prompts"] == 4
        assert content["sae_cfg_dict"]["hook_name"] == "blocks.1.hook_resid_pre"
        assert content["sae_cfg_dict"]["d_sae"] == sae.dict_size
        assert "sae-sweeps" in content["sae_bench_commit_hash"]
        assert read_metrics(file, "core")["kl_div_score"] == own["metrics"]["kl_div_score"]


def test_the_metrics_are_in_the_report_and_the_table(first, command):
    assert command(*ARGUMENTS).code == 0
    assert command(*ARGUMENTS, "saebench.exclude_special_tokens=false").code == 0
    assert command("task=report", *GIVEN).code == 0
    page = (first / "report.html").read_text()
    section = page[page.index('id="saebench"') :].partition("</section>")[0]
    assert "SAEBench core" in section
    assert section.count('<th scope="row">') == 8
    assert "exclude_special_tokens False" in section
    for folder in done(first, "saebench"):
        assert f"{results(folder)['metrics']['kl_div_score']:.4f}" in section
    assert 'id="saebench-others"' not in page
    assert len((first / "saebench.csv").read_text().splitlines()) == 9


def test_a_broken_sae_fails_alone(first, command):
    (weights,) = first.glob("topk-48-*/sae/sae_weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-7])
    ran = command(*ARGUMENTS)
    assert ran.code == 1
    (line,) = ran.err.splitlines()
    assert line.startswith("saebench: core-topk-48-k4-seed0-")
    assert "cannot be read" in line
    assert len(done(first, "saebench")) == 3


def test_other_evaluations_are_run_by_the_package_and_read_back(first, command, tmp_path):
    python = make_peer(tmp_path, check=f"open({str(tmp_path / 'checks')!r}, 'a').write('x')")
    words = ["task=saebench", *GIVEN, "saebench.evals=[absorption]", f"saebench.python={python}"]
    ran = command(*words)
    assert (ran.code, ran.err) == (0, "")
    found = done(first, "saebench", "absorption")
    assert len(found) == 4
    own = results(found[0])
    assert own["metrics"] == {"mean_absorption_fraction_score": 0.25, "mean_num_split_features": None}
    assert own["versions"] == {"sae-bench": "0.6.0"}
    assert (tmp_path / "checks").read_text() == "x"  # of four SAEs
    assert len(list(found[0].glob("*_absorption_eval_results.json"))) == 1
    assert command("task=report", *GIVEN).code == 0
    page = (first / "report.html").read_text()
    assert "mean_absorption_fraction_score" in page[page.index('id="saebench-others"') :]
    assert 'id="saebench"' not in page
    assert "already done" in command(*words).out


@pytest.mark.parametrize(
    ("check", "run", "parts"),
    [
        (
            'print(json.dumps({"problem": "no such model", "fix": "leave it out"})); sys.exit()',
            "pass",
            ["no such model"],
        ),
        ('sys.exit("numpy is too new")', "pass", ["sae-bench cannot be used (numpy is too new)", "pip install"]),
        ("pass", 'sys.exit("the hub cannot be reached")', ["gave no results of ravel: the hub cannot be reached"]),
        ("pass", "request['eval'] = 'scr'", ["does not have the layout of SAEBench's results of ravel"]),
        ("pass", "sys.exit()", ["it printed nothing"]),
    ],
)
def test_what_the_package_cannot_do_is_one_line(first, command, tmp_path, check, run, parts):
    python = make_peer(tmp_path, check, run)
    (sae,) = first.glob("topk-32-*")
    words = ["task=saebench", *GIVEN, "saebench.evals=[ravel]", f"saebench.python={python}", f"sae={sae}"]
    ran = command(*words)
    assert ran.code == 1
    (line,) = ran.err.splitlines()
    assert all(part in line for part in parts), line
    assert not done(first, "saebench")


def test_metrics_that_are_found_unreliable_are_remarked_on(first, command, tmp_path):
    python = make_peer(tmp_path)
    ran = command("task=saebench", *GIVEN, "saebench.evals=[tpp]", f"saebench.python={python}")
    assert "tpp: arXiv:2605.18229 finds these metrics unreliable" in ran.out + ran.err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["saebench.evals=[]"], ["saebench.evals=[]", "must be a list of evaluations", "saebench.evals=[core]"]),
        (["saebench.evals=[core,core]"], ["each once"]),
        (["saebench.evals=[mdl]"], ["core, absorption, ravel"]),
        (["saebench.batch_sequences=0"], ["saebench.batch_sequences=0: must be at least 1"]),
        (["saebench.evals=[ravel]", "saebench.python=nowhere/python"], ["nowhere/python: cannot be run (No such file"]),
        (["saebench.evals=[core,absorption]"], ["saebench.evals=[core,absorption]: absorption: the package sae-bench",
                                                "saebench.python=ENV/bin/python"]),
        (["saebench.evals=[ravel]", "saebench.python=conf.txt"], ["saebench.python=", "cannot be run"]),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_loaded(first, command, monkeypatch, words, parts):
    Path("conf.txt").write_text("no program")
    monkeypatch.setattr("sae_sweeps.tasks.study.load_source", lambda *given: pytest.fail("the model is loaded"))
    ran = command(*ARGUMENTS, *words)
    assert ran.code == 1
    errors = [line for line in ran.err.splitlines() if "Fix:" in line]
    assert len(errors) == 1, ran.err
    assert all(part in errors[0] for part in parts), errors
    assert not (first / "saebench").exists()
