"""Every task in the table has a function and a file in conf/task/."""

import inspect

import pytest

from sae_sweeps.config.tasks import STUDY_TASKS, SWEEP_TASKS, TASKS
from sae_sweeps.runtime.places import PROJECT
from sae_sweeps.tasks.registry import load_plan_studies, load_point_task, load_sweep_task


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_function_of_its_kind(name):
    if name == "plan":
        return  # launch.py shows the plan itself
    if name in SWEEP_TASKS:
        assert parameters(load_sweep_task(name)) == ["sweep", "config"]
    else:
        assert parameters(load_point_task(name)) == ["points", "limits", "progress", "on_finished"]


@pytest.mark.parametrize("name", STUDY_TASKS)
def test_every_study_task_lists_its_studies(name):
    assert parameters(load_plan_studies(name)) == ["sweep", "command"]


def test_an_unknown_task_is_an_error():
    with pytest.raises(KeyError, match="fake"):
        load_sweep_task("fake")


def test_the_table_and_conf_task_have_the_same_tasks():
    assert {file.stem for file in PROJECT.glob("conf/task/*.yaml")} == set(TASKS)
