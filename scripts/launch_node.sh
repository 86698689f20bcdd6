#!/usr/bin/env bash
# One node of a training run on several. The same line on every node, but for --own:
#
#   bash scripts/launch_node.sh --head 10.0.0.1:29500 --own 10.0.0.2 --nodes 2 --processes 8 -- \
#       train.py -opt options/train_SPAN_SRx4.yml --auto_resume
#
#   --head       address:port where the nodes meet; served by the node whose --own it is
#   --own        this node's address, as the others reach it
#   --nodes      how many: 2, or 1:4 for a run that goes on with as few as 1 and takes up to 4
#   --processes  on this node, one a GPU (default 1)
#   --interface  the network device of --own (default: looked up with ip)
#   --id         of the run, the same on every node (default: restore)
#
# A node may die, or be cut off, and come back, or be replaced: the others start again from the last
# checkpoint without it (--nodes 1:4), or wait for it (--nodes 2). The node of --head must live: put
# it on the most stable machine and let a supervisor (systemd, SLURM, Kubernetes) run this script
# again when it ends with anything but 0. Anyone who reaches the port can run code here: see
# docs/distributed.md, "Security".
set -euo pipefail
PYTHON=${PYTHON:-python}
nodes=1 processes=1 id=restore interface= head= own=
while (($#)); do
    case $1 in
        --head | --own | --nodes | --processes | --interface | --id)
            declare "${1#--}=${2:?$1 needs a value}"
            shift 2
            ;;
        --) shift; break ;;
        *) echo "error: unknown word '$1'; see the head of $0" >&2; exit 2 ;;
    esac
done
if [[ -z $head || -z $own || $# -eq 0 ]]; then
    echo "error: needs --head ADDRESS:PORT, --own ADDRESS and, after --, a script" >&2
    exit 2
fi
if [[ -z $interface ]]; then
    interface=$(ip -o addr show to "$own/32" | awk 'NR == 1 { print $2 }')
    : "${interface:?error: no network device here has the address $own; give --interface}"
fi
[[ ${head%:*} == "$own" ]] && serves=1 || serves=0

# Without this a node that joins anew never gets an address from one that stayed (torch 2.13).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export GLOO_SOCKET_IFNAME=$interface NCCL_SOCKET_IFNAME=$interface  # else both may choose 127.0.0.1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# Restarts that get no further are counted by train.py itself, so torchrun may have many.
exec "$PYTHON" -m torch.distributed.run \
    --nnodes="$nodes" --nproc-per-node="$processes" --max-restarts=100 \
    --rdzv-id="$id" --rdzv-backend=c10d --rdzv-endpoint="$head" --local-addr="$own" \
    --rdzv-conf="is_host=$serves,last_call_timeout=3,keep_alive_interval=1,keep_alive_max_attempt=3" \
    "$@" --launcher pytorch
