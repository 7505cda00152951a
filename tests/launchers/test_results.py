"""What a Hydra sweeper and Hydra's callbacks get of points: values, failures, duplicates, several batches."""

import csv
import json

import pytest
from omegaconf import OmegaConf

from sae_sweeps.config.identity import to_named_config
from sae_sweeps.evaluation.metrics import METRICS
from sae_sweeps.launchers.sweepers import BASIC, OURS, find_sweeper_problems, reads_results
from sae_sweeps.runtime.errors import FailedPointError, RefusedError
from sae_sweeps.sweep.objective import find_objective_problems, read_objective
from sae_sweeps.tasks import follow_ups, train
from tests.commands import DONE_RESULTS
from tests.conftest import composed, launch
from tests.launchers.hydra_doubles import BATCHES, CALLBACK, RESULTS, SEEN, multirun, read
from tests.launchers.test_leaving_out import compose_sweep


@pytest.fixture(scope="module")
def ran(tmp_path_factory, tiny):
    """A sweep in three batches, of k = 3 and 4, 4 and 3 again, and 5, with two objectives and a callback."""
    folder = tmp_path_factory.mktemp("ran")
    words = [*tiny, BATCHES, "hydra.sweeper.max_batch_size=2", CALLBACK, "k=3,4,4,3,5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(train, "load_source", counted := Counted(train.load_source))
        patch.setattr(follow_ups, "run_follow_up", followed := Counted(follow_ups.run_follow_up))
        multirun(*words, "name=s", "objective=[nmse,l0]", "then=[report]")
    return folder, counted.calls, followed.calls


class Counted:
    """A function that counts its calls."""

    def __init__(self, function) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.function(*arguments)


def metrics_by_k(folder) -> dict:
    with (folder / "outputs" / "s" / "results.csv").open() as file:
        return {int(row["k"]): [float(row["nmse"]), float(row["l0"])] for row in csv.DictReader(file)}


def test_every_job_has_a_result_and_duplicates_have_the_stored_one(ran):
    folder, _, _ = ran
    expected = metrics_by_k(folder)
    assert sorted(expected) == [3, 4, 5]
    results = [result for batch in read(folder, RESULTS) for result in batch]
    assert [result["k"] for result in results] == [3, 4, 4, 3, 5]
    assert [result["number"] for result in results] == [0, 1, 2, 3, 4]
    for result in results:
        assert (result["status"], result["task"]) == ("COMPLETED", "launch")
        assert result["value"] == pytest.approx(expected[result["k"]], rel=1e-6)
        assert f"k={result['k']}" in result["overrides"]
        assert (folder / "outputs" / "s" / result["folder"] / "results.json").exists()
    assert len({result["folder"] for result in results}) == 3


def test_the_model_is_loaded_once_per_batch_with_new_points(ran):
    folder, loaded, _ = ran
    assert [len(batch) for batch in read(folder, RESULTS)] == [2, 2, 1]
    assert loaded == 2


def test_the_sweep_grows_with_the_batches_and_the_follow_up_runs_once_at_the_end(ran):
    folder, _, followed = ran
    content = json.loads((folder / "outputs" / "s" / "sweep.json").read_text())
    assert [point["config"]["k"] for point in content["points"].values()] == [3, 4, 5]
    assert {point["state"] for point in content["points"].values()} == {"done"}
    assert (followed, content["followed"]["report"]["state"]) == (1, "done")
    report = (folder / "outputs" / "s" / "report.html").read_text()
    assert all(name in report for name in content["points"])


def test_a_callback_sees_points_start_before_they_train_and_end_when_they_end(ran):
    folder, _, _ = ran
    seen = read(folder, SEEN)
    assert [event[:4] for event in seen] == [
        *[["start", 0, 3, False], ["start", 1, 4, False], ["end", 0, 3, True], ["end", 1, 4, True]],
        *[["start", 2, 4, True], ["start", 3, 3, True], ["end", 2, 4, True], ["end", 3, 3, True]],
        *[["start", 4, 5, False], ["end", 4, 5, True], ["over"]],
    ]
    values = {event[1]: event[5] for event in seen if event[0] == "end"}
    results = [result for batch in read(folder, RESULTS) for result in batch]
    assert values == {result["number"]: result["value"] for result in results}


def test_a_point_that_fails_ends_its_job_and_the_sweeper_decides(tmp_path, tiny):
    words = [*tiny, "sae=jumprelu", "sae.sparsity_coefficient=0.01", "training.lr=1e38,1e-3", CALLBACK]
    multirun(*words, BATCHES, "hydra.sweeper.max_batch_size=1", "objective=nmse")
    ((failed,), (fine,)) = read(tmp_path, RESULTS)
    assert (failed["status"], fine["status"]) == ("FAILED", "COMPLETED")
    assert failed["value"].startswith(f"{failed['folder']}: ")
    assert "the loss is inf at step 2" in failed["value"]
    assert [event[4] for event in read(tmp_path, SEEN) if event[0] == "end"] == ["FAILED", "COMPLETED"]
    with pytest.raises(SystemExit, match="1"):  # with our own sweeper
        multirun(*words, "objective=nmse")
    basic = launch("-m", *words[:-1], "hydra/sweeper=basic", cwd=tmp_path)
    assert (basic.returncode, basic.stderr.splitlines()[-1]) == (1, f"error: {failed['value']}")


def test_a_callback_sees_a_pruned_point_end_without_an_objective(tmp_path, tiny):
    multirun(*tiny, "hydra/sweeper=halving", "training.lr=1e-4,1e-2", "objective=nmse", CALLBACK)
    ended = [event for event in read(tmp_path, SEEN) if event[0] == "end"]
    assert [event[4] for event in ended] == ["COMPLETED", "COMPLETED"]
    values = {event[1]: event[5] for event in ended}
    assert values[0] is None
    assert 0 < values[1] < 1


def test_what_leave_out_leaves_out_is_a_failed_job_even_if_it_is_a_whole_batch(tmp_path, tiny):
    words = [*tiny, BATCHES, "hydra.sweeper.max_batch_size=1", "objective=nmse", "leave_out=[{k: 3}]", "k=3,4"]
    multirun(*words)
    ((left_out,), (fine,)) = read(tmp_path, RESULTS)
    assert (left_out["status"], fine["status"]) == ("FAILED", "COMPLETED")
    assert "leave_out" in left_out["value"]


def test_a_single_point_returns_its_objective_to_hydra(tmp_path, tiny):
    assert launch(*tiny, "objective=nmse", "name=s", CALLBACK, cwd=tmp_path).returncode == 0
    (value,) = (event[5] for event in read(tmp_path, SEEN) if event[0] == "end")
    assert value == pytest.approx(metrics_by_k(tmp_path)[4][0], rel=1e-6)


def test_an_optimiser_without_an_objective_is_refused_before_anything_runs(tmp_path, tiny):
    with pytest.raises(RefusedError, match="objective=null: hydra/sweeper=points needs the value of a metric"):
        multirun(*tiny, BATCHES, "k=3,4")
    assert not (tmp_path / "outputs").exists()


def test_an_unknown_metric_is_refused_with_those_that_resemble_it(tmp_path, tiny):
    done = launch(*tiny, "objective=[nmse,ce_degredation]", cwd=tmp_path)
    assert done.stderr == (
        "error: objective=ce_degredation: is no metric. Fix: did you mean ce_degradation or ce_degradation_text?\n"
    )
    assert not (tmp_path / "outputs").exists()


def test_a_list_without_metrics_is_refused():
    (error,) = find_objective_problems(composed("objective=[]"))
    assert str(error).startswith("objective=[]: names no metric")
    assert all(find_objective_problems(composed(f"objective={name}")) == [] for name in METRICS)


@pytest.fixture
def folder(tmp_path):
    """The folder of a finished point with an NMSE of 0.5, an L0 of 2, and a metric that has no value."""
    results = json.loads(DONE_RESULTS)
    results["metrics"]["kl_divergence"], results["missing"] = None, {"kl_divergence": "it is not finite"}
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path


def test_the_objective_is_read_from_the_results(folder):
    assert read_objective(composed("objective=l0"), folder) == 2.0
    assert read_objective(composed("objective=[l0,nmse]"), folder) == [2.0, 0.5]
    assert read_objective(composed("objective=[nmse]"), folder) == [0.5]
    assert read_objective(composed(), folder) is None


@pytest.mark.parametrize(
    ("name", "why"), [("kl_divergence", "it is not finite"), ("nmse_batch", "it is not in results.json")]
)
def test_a_metric_without_a_value_is_an_error_with_the_reason(folder, name, why):
    with pytest.raises(FailedPointError, match=f"{folder.name}: objective={name} has no value: {why}"):
        read_objective(composed(f"objective=[nmse,{name}]"), folder)


def test_a_point_without_results_has_no_objective(tmp_path):
    with pytest.raises(FailedPointError, match="no readable"):
        read_objective(composed("objective=nmse"), tmp_path)


def problems(sweeper: str, *words: str, waits: bool = True, **settings) -> list[str]:
    choices = {"runtime": {"choices": {"hydra/sweeper": "some"}}}
    master = OmegaConf.create({"hydra": {"sweeper": {"_target_": sweeper, **settings}, **choices}})
    return [str(error) for error in find_sweeper_problems(master, composed(*words), waits=waits)]


OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"


@pytest.mark.parametrize(
    ("words", "settings", "expected"),
    [
        ([], {}, ["objective=null: hydra/sweeper=some needs the value of a metric"]),
        (["objective=nmse"], {"waits": False}, ["hydra.launcher.wait=false: hydra/sweeper=some reads the results"]),
        (["objective=nmse", "task=report"], {}, ["task=report: hydra/sweeper=some proposes points"]),
        (["objective=nmse"], {}, []),
        (["objective=nmse"], {"direction": "minimize"}, []),
        (["objective=l0"], {"direction": "maximize"}, []),  # neither end is better
        (["objective=ce_recovered_mean"], {"direction": "minimize"}, ["hydra.sweeper.direction=minimize: does not"]),
        (["objective=[nmse,l0]"], {"direction": "minimize"}, ["hydra.sweeper.direction=minimize: does not fit"]),
        (["objective=[nmse,ce_recovered_mean]"], {"direction": ["minimize", "maximize"]}, []),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_an_optimiser_are_named(words, settings, expected):
    found = problems(OPTUNA, *words, **settings)
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True))


def test_the_fix_of_directions_has_the_better_end_of_each_metric():
    (text,) = problems(OPTUNA, "objective=[nmse,ce_recovered_mean,l0]", direction="minimize")
    assert text.endswith("Fix: 'hydra.sweeper.direction=[minimize,maximize,minimize]'")


def test_sweepers_that_combine_values_need_no_objective():
    assert [problems(ours, waits=False) for ours in OURS] == [[], []]
    assert problems(BASIC) == []
    assert problems(BASIC, waits=False)[0].startswith("hydra.launcher.wait=false: ")
    for ours in OURS:
        assert not reads_results(OmegaConf.create({"hydra": {"sweeper": {"_target_": ours}}}))


def test_an_optimiser_and_halving_do_not_go_together():
    (text,) = problems(OPTUNA, "objective=nmse", "halving.enabled=true")
    assert text.startswith("halving.enabled=true: hydra/sweeper=some chooses points by their results")


def test_names_of_points_do_not_depend_on_the_objective_and_are_stable_for_long_numbers():
    def name(*words: str) -> str:
        (config,) = compose_sweep(*words)
        return to_named_config(config, [])[0]

    assert name() == name("objective=nmse") == name("objective=[nmse,l0]")
    long = name("training.lr=0.0031234567890123457")
    assert long == name("training.lr=3.1234567890123457e-03") == name(f"training.lr={float('0.0031234567890123457')}")
    assert len({long, name("training.lr=0.003123456789012346"), name("training.lr=0.00312345")}) == 3
