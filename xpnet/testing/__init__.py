"""Tools for those who write layers and losses, and the pytest plugin that runs a test on every backend."""

from xpnet.testing.compare import assert_close
from xpnet.testing.contract import check_layer
from xpnet.testing.gradcheck import check_gradient, gradcheck, gradcheck_loss

__all__ = ["assert_close", "check_gradient", "check_layer", "gradcheck", "gradcheck_loss"]
