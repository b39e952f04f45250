"""scikit-learn's own tests of its perceptrons, run on xpnet's estimators: how many pass, and why others do not.

`python -m benchmarks.sklearn_tests` writes sklearn_tests.json and sklearn_tests.md. The tests are those that are
installed with scikit-learn, changed by the rules of tests/sklearn_own.py; the precision is that of X.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from xpnet.files.writer import write_text

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
LIBRARIES = ("scikit-learn", "numpy", "scipy")


class Record:
    """Which tests passed, as pytest tells."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note the outcome of a test, and what failed before or after it."""
        name = report.nodeid.partition("::")[2]
        if report.when == "call" or report.outcome != "passed":
            self.found[name] = "passed" if report.outcome == "passed" else "failed"


def run() -> dict[str, Any]:
    """Run the tests; return what came of each."""
    sys.path.insert(0, str(TESTS))
    from sklearn_own import BY_DESIGN, RULES

    record = Record()
    pytest.main([str(TESTS / "test_sklearn_own.py"), "-q", "-p", "no:cacheprovider"], plugins=[record])
    outcomes = {name: outcome for name, outcome in sorted(record.found.items()) if "every_rule" not in name}
    failed = [name for name, outcome in outcomes.items() if outcome == "failed"]
    return {
        "versions": {name: version(name) for name in LIBRARIES},
        "passed": len(outcomes) - len(failed),
        "of": len(outcomes),
        "failed": {name: BY_DESIGN.get(name.partition("[")[0], "a fault") for name in failed},
        "rules": [{"test": rule.test or "all", "why": rule.why} for rule in RULES],
        "tests": outcomes,
    }


def page(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines = [
        "# scikit-learn's own tests on xpnet's estimators",
        "",
        f"`python -m benchmarks.sklearn_tests`; {versions}. **{results['passed']} of {results['of']} pass.**",
        "",
        "Those that fail:",
        "",
        *(f"- `{name}`: {reason}" for name, reason in results["failed"].items()),
        "",
        "What is changed in the tests, beside the import:",
        "",
        *dict.fromkeys(f"- `{rule['test']}`: {rule['why']}" for rule in results["rules"] if rule["test"] != "all"),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run and write."""
    results = run()
    write_text(HERE / "sklearn_tests.json", json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    write_text(HERE / "sklearn_tests.md", page(results))
    print(page(results))


if __name__ == "__main__":
    main()
