"""xpnet's version, known also where no package metadata are installed."""

__version__ = "0.2.0"
