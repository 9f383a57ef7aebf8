#!/usr/bin/env bash
# Three nodes on loopback until Ctrl-C, with their data in a directory of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${KVD_CLUSTER_DIR:-$(mktemp -d)}
go build -o "$dir/kvd" ./cmd/kvd
nodes=n1=127.0.0.1:7401,n2=127.0.0.1:7402,n3=127.0.0.1:7403
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; wait; echo "data: $dir"' EXIT
for i in 1 2 3; do
	"$dir/kvd" --name "n$i" --data-dir "$dir/n$i" --listen "127.0.0.1:740$i" --http "127.0.0.1:748$i" \
		--initial-cluster "$nodes" --initial-shards "${SHARDS:-geohash1}" &
	pids+=($!)
done
echo "export KVCLI_ENDPOINTS=127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403"
wait
