#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-2%2
#SBATCH --constraint='a100|h100'
#SBATCH --cpus-per-task=4
#SBATCH --dependency=afterany:11:12
#SBATCH --exclusive
#SBATCH --gres=gpu:a100:1
#SBATCH --job-name=first.0a1b
#SBATCH --mail-type=END,FAIL
#SBATCH --mail-user=me@lab.org
#SBATCH --mem=32G
#SBATCH --nice=100
#SBATCH --nodes=1
#SBATCH --open-mode=append
#SBATCH --output='/shared/out puts/first/slurm/first.0a1b/%A_%a_0_log.out'
#SBATCH --partition=gpu
#SBATCH --qos=low
#SBATCH --requeue
#SBATCH --signal=USR1@300
#SBATCH --time=1-12:00:00

# setup
module load cuda
source ~/env.sh
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}"
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
[ -n "${OMP_WAIT_POLICY:-}" ] || export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=1000
stopping= step=
pass_on() { stopping=yes; [ -z "$step" ] || kill -s USR1 "$step" 2>/dev/null; }
trap pass_on USR1 TERM
keep_running() {
  while true; do
    "$@" & step=$!
    [ -z "$stopping" ] || pass_on
    while wait "$step"; code=$?; kill -0 "$step" 2>/dev/null; do :; done
    if [ "$code" -le 128 ] || [ -n "$stopping" ]; then exit "$code"; fi
    echo "killed by signal $((code - 128)); beginning again from the last saved states" >&2
    sleep 5
    if [ -n "$stopping" ]; then exit "$code"; fi
  done
}

# command
export SUBMITIT_EXECUTOR=slurm
keep_running srun '--chdir=/shared/out puts/first/slurm/code-0123' apptainer exec --nv image.sif python3 -u -m sae_sweeps.launchers.slurm.node '/shared/out puts/first/slurm/first.0a1b'
