"""The solver "lbfgs": all samples at once, minimized by SciPy, as scikit-learn does."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import OptimizeResult
from scipy.optimize import minimize as scipy_minimize
from sklearn.exceptions import ConvergenceWarning

from xpnet import History, Layer, Model, NonFiniteError
from xpnet.interop.course import report
from xpnet.interop.given import Given
from xpnet.interop.objective import Objective

LIMIT = 1
"""What SciPy says where iterations or calls ran out; otherwise no step was found, as where the precision is spent."""

Function = Callable[[Any], tuple[float, np.ndarray]]


def penalty(net: Layer, decay: float) -> Function:
    """Return ½ λ ‖W‖² of all weight matrices, and its gradient, as a function of a host vector θ."""
    strength = np.concatenate([np.full(w.stop - w.start, decay * w.decayed) for w in net.layout])
    return lambda theta: (0.5 * float(theta @ (strength * theta)), strength * theta)


def penalized(objective: Function, net: Layer, decay: float) -> Function:
    """Return an objective plus ½ λ ‖W‖², with its gradient."""
    other = penalty(net, decay)

    def both(theta: Any) -> tuple[float, np.ndarray]:
        (loss, gradient), (more, pull) = objective(theta), other(theta)
        return loss + more, gradient + pull

    return both


def minimize(settings: Any, model: Model, given: Given, held: Given | None, decay: float) -> tuple[History, int, float]:
    """Move the model's θ to where the penalized loss is least; return the History, the iterations and the loss there.

    The history has the loss after each iteration, and that of the held samples. NonFiniteError if no finite loss is
    found; ConvergenceWarning if `max_iter`, `max_fun` or the precision ended the search.
    """
    loss, net, history = model.loss, model.net, History()
    shown = loss.shown if isinstance(loss, Objective) else 1.0
    function, extra = penalized(model.objective(*given.arguments), net, decay), penalty(net, decay)
    other = None if held is None else model.objective(*held.arguments)

    def value(theta: np.ndarray, whole: float) -> float:
        own = extra(theta)[0]
        return (whole - own) * shown + own

    def note(intermediate_result: OptimizeResult) -> None:
        theta = intermediate_result.x
        history.add(epoch=len(history.get("epoch", ())) + 1, loss=value(theta, float(intermediate_result.fun)))
        if other is not None:
            history.add(val_loss=other(theta)[0] * shown)
        report(settings, history)

    start = model.backend.asnumpy(model.theta).astype(np.float64)
    limits = {"maxfun": settings.max_fun, "maxiter": settings.max_iter, "gtol": settings.tol}
    with np.errstate(all="ignore"):
        found = scipy_minimize(function, start, jac=True, method="L-BFGS-B", callback=note, options=limits)
    if not (np.isfinite(found.fun) and np.isfinite(found.x).all()):
        raise NonFiniteError("L-BFGS found no finite loss: scale X and, if they are numbers, the targets")
    model.theta = model.backend.asarray(found.x, dtype=model.dtype)
    history.stopped = f"L-BFGS: {found.message}"
    if found.status:
        what = f"L-BFGS has not converged after {found.nit} iterations and {found.nfev} calls ({found.message})"
        finer = ', or pass dtype="float64"' if model.dtype == "float32" else ""
        remedy = "raise max_iter, max_fun or tol" if found.status == LIMIT else f"raise tol, scale X{finer}"
        warnings.warn(f"{what}: {remedy}", ConvergenceWarning, stacklevel=4)
    return history, min(int(found.nit), settings.max_iter), value(found.x, float(found.fun))
