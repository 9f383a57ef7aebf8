#!/usr/bin/env bash
# Three nodes on loopback until Ctrl-C, with their data in a directory of their own. CLUSTER_DIR keeps it elsewhere, also
# from one time to the next; SHARDS says how the key space is cut at first.
set -euo pipefail
set -m # Each node in a process group of its own: Ctrl-C reaches this script only, and a node is told to stop once.
cd "$(dirname "$0")/.."
dir=${CLUSTER_DIR:-$(mktemp -d)}
mkdir -p "$dir"
go build -o "$dir/kvd" ./cmd/kvd
nodes=n1=127.0.0.1:7401,n2=127.0.0.1:7402,n3=127.0.0.1:7403
pids=()

stop() {
	trap '' INT TERM
	for pid in "${pids[@]}"; do
		kill -TERM "$pid" 2>/dev/null || true # It may have ended by itself.
	done
	wait || true
	echo "data: $dir"
}
trap stop EXIT
trap 'exit 0' INT TERM

for i in 1 2 3; do
	"$dir/kvd" --name "n$i" --data-dir "$dir/n$i" --listen "127.0.0.1:740$i" --http "127.0.0.1:748$i" \
		--initial-cluster "$nodes" --initial-shards "${SHARDS:-geohash1}" &
	pids+=($!)
done
echo "export KVCLI_ENDPOINTS=127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403"
wait -n && code=0 || code=$?
echo "a node has ended with code $code: the others stop" >&2
exit 1
