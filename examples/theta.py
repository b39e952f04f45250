"""A network is a function of one vector θ: two spirals, first by the lesson's rule by hand, then by SciPy's L-BFGS.

`python examples/theta.py [backend]`
"""

import argparse
import sys

import numpy as np

import xpnet as xn

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("backend", nargs="?", help="auto, numpy, cupy, torch, jax or strict, perhaps with a device: cupy:1")
backend = xn.backend(parser.parse_args().backend)

points, labels = xn.datasets.spirals(400)  # no straight line separates them

net = xn.Sequential(xn.Linear(2, 32), xn.Tanh(), xn.Linear(32, 32), xn.Tanh(), xn.Linear(32, 2))
x, y = backend.asarray(points), backend.asarray(labels)

# The lesson's update rule, word for word: θ ← θ − η ∂ℒ/∂θ
theta = net.init(seed=0, backend=backend)  # one flat array
for step in range(4001):
    scores, backward = net(theta, x)  # value and pullback
    loss, dscores = xn.cross_entropy(scores, y)  # value and gradient
    theta -= 0.5 * backward(dscores)
    if step % 1000 == 0:
        accuracy = float(xn.metrics.accuracy(scores, y))
        print(f"by hand    step {step:4}   loss {float(loss):.4f}   accuracy {accuracy:.3f}")

# The same θ is what a general optimizer wants: a vector in, the value and its gradient out.
try:
    from scipy.optimize import minimize
except ImportError:
    sys.exit("for the second half: pip install scipy")


def objective(vector: np.ndarray) -> tuple[float, np.ndarray]:
    scores, backward = net(backend.asarray(vector, dtype="float32"), x)
    loss, dscores = xn.cross_entropy(scores, y)
    return float(loss), backend.asnumpy(backward(dscores)).astype(np.float64)


start = backend.asnumpy(net.init(seed=0, backend=backend)).astype(np.float64)
found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 500})
scores, _ = net(backend.asarray(found.x, dtype="float32"), x)
accuracy = float(xn.metrics.accuracy(scores, y))
print(f"by L-BFGS  {found.nfev} evaluations   loss {found.fun:.6f}   accuracy {accuracy:.3f}")
