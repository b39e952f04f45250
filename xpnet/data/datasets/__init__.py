"""Data sets: MNIST and the digits of UCI, which travel inside the package, points made on the spot, your own IDX files.

Nothing here touches the network, and nothing is ever unpickled.
"""

from xpnet.data.datasets.files import read_idx
from xpnet.data.datasets.made import moons, spirals
from xpnet.data.datasets.published import digits, idx, mnist

__all__ = ["digits", "idx", "mnist", "moons", "read_idx", "spirals"]
