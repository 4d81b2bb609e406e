#!/bin/bash
# Trains one network on several nodes of a Slurm cluster, one process a node:
#
#   sbatch --nodes=4 docs/training/slurm.sh configs/resnet50_ibn.py runs/resnet50_ibn \
#       --config.data.root=/data/AIC20_ReID
#
# Submit it from the repository's folder, in the environment that dex_jax is installed
# in. The run's folder and the data must lie where all nodes see them. Slurm sends
# SIGTERM two minutes before the time is up: the run saves and leaves, goes back into
# the queue, and resumes exactly.
#SBATCH --job-name=dex_jax
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: sbatch [--nodes=N] $0 CONFIG WORKDIR [--config.FIELD=VALUE ...]" >&2
    exit 2
fi
config=$1 workdir=$2
shift 2

mkdir -p "$workdir"

# JAX asks Slurm for the other processes itself; a node that dies ends all of them.
srun --kill-on-bad-exit=1 python train.py --distributed \
    --config="$config" --workdir="$workdir" "$@" | tee "$workdir/slurm.log"

# A run that was stopped says so, and goes on when its turn comes again.
if grep -q '^stopped after step' "$workdir/slurm.log"; then
    scontrol requeue "$SLURM_JOB_ID"
fi
