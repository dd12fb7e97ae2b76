#!/bin/sh
# The steps of the images: run by the Dockerfiles, and by tests/deployments without any engine.
#
#   build.sh wheels DIR                   build both distributions from this repository into DIR
#   build.sh install DIR VENV NAME[EXTRAS]   an environment of one of them, by the pins
#
# TORCH_INDEX, if not empty, is searched as well: the index of CPU builds, for an image without CUDA.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)

case ${1:-} in
wheels)
	tools=$(mktemp -d)
	python3 -m venv "$tools"
	"$tools/bin/python" -m pip install --quiet --constraint "$root/constraints.txt" build hatchling
	for project in "$root" "$root/packaging/core"; do
		"$tools/bin/python" -m build --wheel --no-isolation --outdir "$2" "$project" >/dev/null
	done
	rm -rf "$tools"
	;;
install)
	python3 -m venv "$3"
	name=${4%%\[*}
	wheel=$(ls "$2/$(echo "$name" | tr - _)"-[0-9]*.whl)
	"$3/bin/python" -m pip install --quiet --no-cache-dir --constraint "$root/constraints.txt" \
		${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$wheel${4#"$name"}"
	"$3/bin/python" -m pip check
	"$3/bin/python" -m pip uninstall --quiet --yes pip
	;;
*)
	sed -n 's/^#   //p' "$0" >&2
	exit 2
	;;
esac
