import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'xpnet[sklearn]'")

import sklearn
from sklearn_own import BY_DESIGN, SEED, adapted, path, rewritten

if not sklearn.__version__.startswith("1.9."):
    pytest.skip(f"the rules are for the tests of scikit-learn 1.9, got {sklearn.__version__}", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def global_random_seed():
    return SEED


def test_every_rule_changes_something():
    assert rewritten(path().read_text(encoding="utf-8"))[1] == []


OWN = {name: test for name, test in vars(adapted()).items() if name.startswith("test_")}
for name, reason in BY_DESIGN.items():
    OWN[name] = pytest.mark.xfail(reason=reason, strict=True)(OWN[name])
globals().update(OWN)
