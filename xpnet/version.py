"""xpnet's version, known also where no package metadata are installed."""

__version__ = "0.1.0"
