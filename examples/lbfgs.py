"""A network is a function of one vector θ, so SciPy can train it: L-BFGS beside Adam on a small regression.

`python examples/lbfgs.py [backend]`
"""

import argparse
import sys

import numpy as np

import xpnet as xn

try:
    from scipy.optimize import minimize
except ImportError:
    sys.exit("this example needs SciPy: pip install scipy")

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("backend", nargs="?", help="auto, numpy, cupy, torch, jax or strict, perhaps with a device: cupy:1")

# 400 points of a curve in the plane, a little noise on them; the noise's mean square, 1e-4, is the best there is.
rng = np.random.default_rng(0)
x = rng.uniform(-3, 3, (400, 1))
y = np.sin(2 * x) * np.exp(-0.2 * x * x) + rng.normal(0, 0.01, x.shape)

net = xn.Sequential(xn.Linear(1, 32), xn.Tanh(), xn.Linear(32, 32), xn.Tanh(), xn.Linear(32, 1))
model = xn.Model(net, xn.mean_squared_error, xn.Adam(3e-3), backend=parser.parse_args().backend, dtype="float64")
start = model.backend.asnumpy(model.theta).copy()

history = model.fit(x, y, epochs=300, batch_size=len(x), progress=False)
print(f"Adam     300 gradients   loss {model.evaluate(x, y)['loss']:.6f}")

# The curvature that L-BFGS gathers from the gradients of its last steps is worth more than Adam's one number a weight.
found = minimize(model.objective(x, y), start, jac=True, method="L-BFGS-B", options={"maxfun": 300, "maxiter": 300})
model.theta = model.backend.asarray(found.x, dtype=model.dtype)
print(f"L-BFGS  {found.nfev:4} gradients   loss {model.evaluate(x, y)['loss']:.6f}")
