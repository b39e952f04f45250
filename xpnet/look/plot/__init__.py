"""Pictures of training, drawn with matplotlib: `from xpnet import plot`, after `pip install 'xpnet[plot]'`.

A function with `ax=` draws one panel on it and returns the Axes; one with `figure=` draws several on it and returns
the Figure. Left out, a new figure is made. A notebook shows it, once, by itself; a script saves it with
`figure.savefig("name.png")` or `ax.figure.savefig("name.png")`, and nothing stays open that has to be closed. Where
matplotlib has windows, pyplot holds the figure, and `plt.show()` shows it.
Colours are Okabe and Ito's, which colour-blind readers can tell apart; text and background are the active style's.
"""

from xpnet.look.plot.attention import attention
from xpnet.look.plot.calibration import calibration
from xpnet.look.plot.canvas import colour
from xpnet.look.plot.curves import curves, history, layers, max_weight, microscope, trouble
from xpnet.look.plot.features import feature_maps, filters, weights
from xpnet.look.plot.functions import loss, loss_functions
from xpnet.look.plot.images import confusion_matrix, images, mistakes, samples
from xpnet.look.plot.network import network
from xpnet.look.plot.predictions import predictions
from xpnet.look.plot.ranking import precision_recall, roc
from xpnet.look.plot.rates import rates
from xpnet.look.plot.regions import decision_regions, scatter, training
from xpnet.look.plot.residuals import residuals
from xpnet.look.plot.schedules import schedule

__all__ = [
    "attention",
    "calibration",
    "colour",
    "confusion_matrix",
    "curves",
    "decision_regions",
    "feature_maps",
    "filters",
    "history",
    "images",
    "layers",
    "loss",
    "loss_functions",
    "max_weight",
    "microscope",
    "mistakes",
    "network",
    "precision_recall",
    "predictions",
    "rates",
    "residuals",
    "roc",
    "samples",
    "scatter",
    "schedule",
    "training",
    "trouble",
    "weights",
]
