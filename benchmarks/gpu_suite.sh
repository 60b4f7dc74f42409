#!/usr/bin/env bash
# All measurements that need a GPU, in under ten minutes, on a machine without internet; prints one Markdown table.
#
#   benchmarks/gpu_suite.sh                          # on the GPU
#   DEVICE=cpu benchmarks/gpu_suite.sh --smoke       # every section in tiny sizes on the CPU: does the suite work?
#   WHEELS=wheels benchmarks/gpu_suite.sh            # install what the machine lacks from a folder first
#   benchmarks/gpu_suite.sh --only training,loss     # some sections alone
#
# It needs torch, torchvision, timm, numpy, Pillow and PyYAML, and of small packages pydantic, msgspec and pycocotools;
# for exported files also onnx, onnxruntime-gpu, onnxscript and onnx-ir. Where the machine lacks some of them, bring
# their wheels, made on a machine with internet and the same Python:
#
#   pip download --only-binary :all: --no-deps -d wheels \
#       pydantic pydantic-core annotated-types typing-inspection msgspec pycocotools onnxscript onnx-ir
#
# Other variables: PYTHON (python3), OUT (folder of the results, gpu_suite), SECONDS_IN_ALL (570).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
if [[ -n ${WHEELS:-} ]]; then
    # One by one: a wheel that does not fit this Python must not keep the others away.
    for wheel in "$WHEELS"/*.whl; do
        "$python" -m pip install --quiet --no-index --no-deps "$wheel" || echo "not installed: $wheel" >&2
    done
fi
export PYTHONPATH="$root:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$root/benchmarks/gpu_suite.py" --device "${DEVICE:-cuda}" --out "${OUT:-gpu_suite}" \
    --seconds "${SECONDS_IN_ALL:-570}" "$@"
