#!/bin/bash
# Trains one network on several plain hosts, one process a host, over ssh:
#
#   HOSTS="gpu1 gpu2 gpu3" docs/training/hosts.sh configs/resnet50_ibn.py \
#       runs/resnet50_ibn --config.data.root=/data/AIC20_ReID
#
# Run it in the repository's folder on the first of the hosts. Every host must be
# reached over ssh without a password, hold this folder at the same path, see the same
# run's folder and data, and reach the first host's PORT (12355). PYTHON is the
# interpreter of the environment that dex_jax is installed in.
#
# Ctrl-C (or SIGTERM) lets every process finish its step, save and leave. The same
# command resumes.
set -euo pipefail

if [ $# -lt 2 ] || [ -z "${HOSTS:-}" ]; then
    echo "usage: HOSTS=\"A B ...\" $0 CONFIG WORKDIR [--config.FIELD=VALUE ...]" >&2
    exit 2
fi
config=$1 workdir=$2
shift 2
read -ra hosts <<<"$HOSTS"
mkdir -p "$workdir"

clients=()
for index in "${!hosts[@]}"; do
    command=(
        "${PYTHON:-python}" train.py --distributed
        --coordinator="${hosts[0]}:${PORT:-12355}"
        --num_processes="${#hosts[@]}" --process_id="$index"
        --config="$config" --workdir="$workdir" "$@"
    )
    # A session of its own: Ctrl-C must not cut the line before the process has saved.
    setsid ssh "${hosts[$index]}" "cd $(printf %q "$PWD") &&" \
        "echo \$\$ >$(printf %q "$workdir/pid.$index") &&" \
        "exec $(printf '%q ' "${command[@]}")" </dev/null &
    clients+=($!)
done

stop() {
    for index in "${!hosts[@]}"; do
        ssh "${hosts[$index]}" "kill -TERM $(cat "$workdir/pid.$index")" </dev/null || true
    done
}
trap stop INT TERM

status=0
for client in "${clients[@]}"; do
    # A signal interrupts `wait`, not the process waited for.
    while kill -0 "$client" 2>/dev/null; do
        wait "$client" && break || true
    done
    wait "$client" || status=$?
done
exit "$status"
