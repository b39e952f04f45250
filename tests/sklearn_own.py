"""scikit-learn's own tests of its multi-layer perceptrons, as they are installed, for xpnet's estimators.

`adapted()` reads sklearn/neural_network/tests/test_mlp.py, changes what `RULES` say, and runs it as a module: nothing
of it is copied here. The rules touch what is private there, and texts of errors; what is asserted of public things
stays.
"""

import importlib.util
import warnings
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from xpnet.interop import sklearn as ours
from xpnet.interop.lbfgs import penalized


class Rule(NamedTuple):
    """A piece of a test, and what stands in its place."""

    test: str
    """Which test it is in; "" for the top of the file."""
    old: str
    new: str
    why: str


RULES = [
    Rule(
        "",
        "from sklearn.neural_network import MLPClassifier, MLPRegressor",
        "from sklearn_own import MLPClassifier, MLPRegressor",
        "the estimators are xpnet's, in the precision of X",
    ),
    Rule(
        "test_fit",
        "    mlp.coefs_ = [0] * 2\n    mlp.intercepts_ = [0] * 2\n",
        "    mlp.partial_fit(X, y, classes=[0, 1])\n",
        "weights are assigned once a first call has told their shapes",
    ),
    *(
        Rule("test_fit", f"    mlp.{name} = {value}\n", "", "nothing else has to be set by hand")
        for name, value in [
            ("n_outputs_", "1"),
            ("n_features_in_", "3"),
            ("n_iter_", "0"),
            ("learning_rate_", "0.1"),
            ("n_layers_", "3"),
            ("out_activation_", '"logistic"'),
            ("t_", "0"),
            ("best_loss_", "np.inf"),
            ("loss_curve_", "[]"),
            ("_no_improvement_count", "0"),
            ("_coef_grads", "[] * 2"),
            ("_intercept_grads", "[] * 2"),
            ("_coef_grads", "[0] * (mlp.n_layers_ - 1)"),
            ("_intercept_grads", "[0] * (mlp.n_layers_ - 1)"),
            ("_coef_velocity", "[np.zeros_like(coefs) for coefs in mlp.coefs_]"),
            (
                "_intercept_velocity",
                "[\n        np.zeros_like(intercepts) for intercepts in mlp.intercepts_\n    ]",
            ),
        ]
    ),
    Rule(
        "test_gradient",
        "np.hstack([l.ravel() for l in mlp.coefs_ + mlp.intercepts_])",
        "mlp.model_.theta",
        "θ holds each layer's weights and then its biases",
    ),
    Rule(
        "test_gradient",
        "mlp._loss_grad_lbfgs(\n"
        "                    t, X, Y, None, activations, deltas, coef_grads, intercept_grads\n"
        "                )",
        "gradient(mlp, X, y, t)",
        "the function that L-BFGS minimizes is built from Model.objective",
    ),
    *(
        Rule(test, "_optimizer.learning_rate", "model_.optimizer.lr", "the rate is the optimizer's")
        for test in ("test_learning_rate_warmstart", "test_adaptive_learning_rate")
    ),
    *(
        Rule(test, "_no_improvement_count", "_waited", "a private name")
        for test in ("test_n_iter_no_change", "test_n_iter_no_change_inf")
    ),
    Rule(
        "test_nonfinite_params",
        "pytest.raises(ValueError, match=msg)",
        'pytest.raises(xpnet.NonFiniteError, match="scale X")',
        "what is not finite is told by an error of its own, at once",
    ),
    Rule(
        "test_early_stopping_stratified",
        r"\['True'\]",
        r"\[1\]",
        "the label is the user's, not its number",
    ),
    Rule(
        "test_warm_start",
        '"warm_start can only be used where `y` has the same "\n'
        '            "classes as in the previous call to fit."\n'
        '            " Previously got [0 1 2], `y` has %s" % np.unique(y_i)',
        '"warm_start can only be used where y has the same classes as before, [0 1 2], got %s" % np.unique(y_i)',
        "the text of an error",
    ),
]

BY_DESIGN = {
    "test_predict_proba_multilabel": "of probabilities that round to 1 the logarithms are exact, and differ",
    "test_mlp_diverging_loss": "a loss that is not finite raises NonFiniteError at once: θ stays as it was before",
}
"""Tests that fail, and why."""

SEED = 42
"""What scikit-learn's fixture `global_random_seed` is unless its user asks for others."""

MLPClassifier, MLPRegressor = (partial(cls, dtype=None) for cls in (ours.MLPClassifier, ours.MLPRegressor))


def gradient(mlp, x, y, theta):
    """Return the penalized loss of an estimator at θ, and its gradient."""
    _, given = mlp._admit(x, y, None, reset=False)
    return penalized(mlp.model_.objective(*given.arguments), mlp.model_.net, mlp.alpha / len(x))(theta)


def path() -> Path:
    """Return where the tests are."""
    return Path(importlib.util.find_spec("sklearn").origin).parent / "neural_network" / "tests" / "test_mlp.py"


def rewritten(text: str) -> tuple[str, list[Rule]]:
    """Return the text after all rules, and the rules that found nothing to change."""
    idle = []
    for rule in RULES:
        start = text.index(f"def {rule.test}(") if rule.test else 0
        stop = text.find("\n\n\n", start)
        part = text[start:stop]
        if rule.old not in part:
            idle.append(rule)
        text = text[:start] + part.replace(rule.old, rule.new) + text[stop:]
    return text, idle


def adapted() -> ModuleType:
    """Return the tests as a module."""
    import xpnet

    module = ModuleType("adapted")
    module.__file__ = str(path())
    vars(module).update(gradient=gradient, xpnet=xpnet)
    text, _ = rewritten(path().read_text(encoding="utf-8"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(text, str(path()), "exec"), vars(module))
    return module
