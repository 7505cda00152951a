#!/usr/bin/env bash
# A sweep on a Slurm cluster: a copy of this file is a place for what your cluster needs. Run it on the login node; it
# submits the jobs, prints their ids and returns. All words that you add go to launch.py and replace those below:
#
#     bash examples/slurm/sweep.sh task=plan           # what would it take? submits nothing
#     bash examples/slurm/sweep.sh                     # submits
#     bash examples/slurm/sweep.sh                     # again, after any accident: submits only what is missing
#     bash examples/slurm/sweep.sh training.tokens=1000000 name=longer
#
# docs/cluster.md explains what happens on the nodes, and what to do when something goes wrong.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." # the folder of sae-sweeps, which the nodes must share, as well as .venv

words=(
  # The sweep: 3 architectures x 2 sizes x 2 sparsities = 12 points, on the model and text that are embedded in the
  # project. For yours: model.name=FOLDER model.hook=blocks.12.hook_resid_pre dataset=text 'dataset.files=texts/*.txt'
  name=cluster
  sae=batchtopk,topk,jumprelu
  dict_size=3072,6144
  k=16,32

  # Where results go: a file system that the nodes share.
  # output_root=/project/me/outputs

  # Each pack of points is one task of a job array, on one GPU; the language model runs once for a pack. Smaller packs
  # are more tasks, which run at the same time on more GPUs.
  hydra/launcher=slurm
  hydra.launcher.max_points=6

  # What a task asks Slurm for. gres=null: a partition without GPUs. A job that reaches its time limit saves its points
  # `warning` seconds before, and requeues itself.
  hydra.launcher.gres=gpu:1
  hydra.launcher.cpus=8
  hydra.launcher.memory=32G
  hydra.launcher.time=4:00:00
  hydra.launcher.warning=300
  # hydra.launcher.partition=gpu
  # hydra.launcher.account=my-lab
  # hydra.launcher.constraint="'a100|h100'"
  # '+hydra.launcher.sbatch.mail-user=me@lab.org'

  # Lines of shell before a job's command.
  # "hydra.launcher.setup=['module load cuda']"

  # The command is refused if the sweep would take more.
  limits.points=100

  # When all points have ended, in a job of its own: results.csv, the table and report.html.
  'then=[report]'
)

exec "${PYTHON:-.venv/bin/python}" launch.py -m "${words[@]}" "$@"
