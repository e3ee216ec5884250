#!/usr/bin/env bash
# onnxruntime's Linux wheel looks for a telemetry host, and its own switch does not stop it.
#
# Expected: `onnxruntime.disable_telemetry_events()`, called right after the import, keeps the process off the
# network. (Until 1.29 wheels for Linux had no telemetry at all.)
# Seen: once a model has been running for some seconds, the name of a host is looked up, with the switch or
# without. Only the environment variable ORT_DISABLE_TELEMETRY=1, set before the import, prevents it. Where CI
# is set nothing is looked up, so that no test of a continuous integration sees it.
#
# Needs Python 3.11 or newer with venv, a C compiler (cc), Linux. Exits 1 if any of this has changed.
set -euo pipefail
unset CI ORT_RUNNING_UNIT_TESTS ORT_DISABLE_TELEMETRY

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv environment
environment/bin/pip install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6

# Names that are looked up go to a file, and are answered as they are without a network.
cat > names.c <<'C'
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
    FILE *log = fopen(getenv("LOOKED_UP"), "a");
    if (log && name) fprintf(log, "%s\n", name);
    if (log) fclose(log);
    return EAI_AGAIN;
}
C
cc -shared -fPIC -o names.so names.c

cat > run.py <<'P'
import os, sys, time
import numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto, helper
if "switch" in sys.argv:
    ort.disable_telemetry_events()
x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy")
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
end = time.monotonic() + 20
while time.monotonic() < end:
    session.run(None, {"x": np.ones(1, np.float32)})
    time.sleep(0.01)
P

# looked_up NAME ARGUMENTS...: the names that a run of 20 s looked up
looked_up() {
  local log=$work/$1
  : > "$log"
  LOOKED_UP=$log LD_PRELOAD=$work/names.so environment/bin/python run.py "${@:2}"
  sort -u "$log"
}

environment/bin/python -c 'import onnxruntime, platform
print("onnxruntime", onnxruntime.__version__, "Python", platform.python_version(), platform.system())'
default=$(looked_up default)
switch=$(looked_up switched_off switch)
variable=$(ORT_DISABLE_TELEMETRY=1 looked_up variable)
in_ci=$(CI=true looked_up in_ci)
echo "names looked up, by default:                    ${default:-none}"
echo "after disable_telemetry_events():               ${switch:-none}"
echo "with ORT_DISABLE_TELEMETRY=1 before the import: ${variable:-none}"
echo "where CI=true:                                  ${in_ci:-none}"

if [ -n "$default" ] && [ "$default" = "$switch" ] && [ -z "$variable$in_ci" ]; then
  echo "As described: of the switches only the environment variable prevents the look-up."
else
  echo "This has changed."
  exit 1
fi
