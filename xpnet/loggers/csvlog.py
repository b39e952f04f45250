"""A log as a table that any program reads."""

import csv
import io
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from xpnet.errors import DataError
from xpnet.files import storage
from xpnet.loggers.base import Logger

if TYPE_CHECKING:
    from xpnet.model import Model


class CSVLog(Logger):
    """Writes the history to a CSV file, a row an epoch, as soon as the epoch is over.

    The file holds the epochs that the model has done: of a run that goes on the rows are kept up to where it stands, so
    that none is there twice and none is lost, and a new model begins a new file. A number that is not recorded from
    the first epoch on gets a column when it comes.

    DataError if the file is there and is none of CSVLog's: it is left as it is.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path)
        self._columns: list[str] = []

    def on_train_begin(self, model: "Model") -> None:
        """Look at the file that is there."""
        super().on_train_begin(model)
        if model.world.rank == 0:
            rows = [row for row in self._rows() if float(row["epoch"]) <= model.epoch]
            self._columns = list(rows[0]) if rows else []
            self._rewrite(rows)

    def open(self, model: "Model") -> None:
        """The file is opened for each row, so that it is whole at any time."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append a row."""
        row = {"epoch": numbers["epoch"], "step": step, **numbers}
        if new := [name for name in row if name not in self._columns]:
            rows = self._rows()
            self._columns += new
            self._rewrite(rows)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)

    def _rows(self) -> list[dict[str, str]]:
        """Return the rows that are there, but for one that was cut off; DataError for a file of something else."""
        if not self.path.exists():
            return []
        text = self.path.read_bytes().decode("utf-8", "replace")
        if text and not text.startswith("epoch,step,"):
            raise DataError(f"{self.path} is no log of CSVLog, it does not begin with epoch,step: choose another name")
        return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        file = io.StringIO(newline="")
        if self._columns:
            table = csv.DictWriter(file, self._columns, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        storage.write(self.path, [(0, file.getvalue().encode())])
