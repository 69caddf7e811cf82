"""Times the cases of kernel_speed.py with neural-tangents, in an environment of its own; started by kernel_speed.py.

python -m venv peer
peer/bin/pip install --no-deps neural-tangents==0.6.5
peer/bin/pip install frozendict jax==0.4.25 jaxlib==0.4.25 "numpy<2" "scipy<1.13"
"""

import json
import sys
import time
import types

for name in ("experimental", "experimental.empirical_tf"):  # would import TensorFlow, which nothing here needs
    sys.modules[f"neural_tangents.{name}"] = types.ModuleType(name)

import jax  # noqa: E402
import numpy as np  # noqa: E402
from neural_tangents import stax  # noqa: E402


def dense(depth):
    layers = [layer for _ in range(depth) for layer in (stax.Dense(1, W_std=2**0.5, b_std=0.1), stax.Relu())]
    return stax.serial(*layers, stax.Dense(1, W_std=2**0.5, b_std=0.1))[2]


def conv(depth, end):
    layers = [layer for _ in range(depth) for layer in (stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5), stax.Relu())]
    return stax.serial(*layers, end, stax.Dense(1, W_std=2**0.5))[2]


KERNELS = {
    "dense": lambda: dense(5),
    "conv flatten": lambda: conv(4, stax.Flatten()),
    "conv pool": lambda: conv(4, stax.GlobalAvgPool()),
}


def main():
    case = json.loads(sys.argv[1])
    jax.config.update("jax_enable_x64", case["dtype"] == "float64")
    x = np.load(case["inputs"]).astype(case["dtype"])
    kernel = jax.jit(lambda a: KERNELS[case["kernel"]]()(a, None, "ntk"))
    x = jax.numpy.asarray(x)
    found = kernel(x).block_until_ready()
    times = []
    for _ in range(case["repeats"]):
        start = time.perf_counter()
        kernel(x).block_until_ready()
        times.append(time.perf_counter() - start)
    np.save(case["output"], np.asarray(found))
    print(json.dumps(times))


if __name__ == "__main__":
    main()
