#!/bin/bash
# Eight GPUs of one machine. Repeat the command to resume; more arguments go to `salt-zoo train`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
torchrun --nproc_per_node 8 -m salt_zoo train "$here/dmd_1.3b.yaml" --out runs/dmd-1.3b \
    --set execution.shard=8 "$@"
