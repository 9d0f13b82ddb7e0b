"""Rows become a DataFrame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jslab.errors import ReplayError
from jslab.replay.rows import Batch
from jslab.wire import headers_of

OWN = ("seq", "subject", "time")


def check_columns(columns: Sequence[str] | bool) -> None:
    """Raise ReplayError for columns that would hide what every row has."""
    if isinstance(columns, bool):
        return
    if isinstance(columns, str):
        raise ReplayError(
            "json= takes a list of column names", seen=repr(columns), do=f"write json=[{columns!r}]"
        )
    _refuse_hidden(columns)


def _refuse_hidden(columns: Sequence[str]) -> None:
    if hidden := [name for name in OWN if name in columns]:
        raise ReplayError(
            f"a column {hidden[0]!r} from the payload would hide the message's own",
            seen=f"asked for {', '.join(columns)}",
            do=f"leave it out of json=; to have it, read data and parse it yourself: the message's own "
            f"{', '.join(OWN)} are always there",
        )


class Columns:
    """Gathers batches column by column, parsed as they come."""

    def __init__(self, columns: Sequence[str] | bool) -> None:
        self._columns = (
            None if columns is False else Parsed([] if columns is True else columns, columns is True)
        )
        self._seqs: list[int] = []
        self._subjects: list[str] = []
        self._times: list[int] = []
        self._headers: list[dict[str, str] | None] = []
        self._data: list[bytes] = []

    @property
    def not_json(self) -> list[int]:
        """Sequences of payloads that are no JSON objects."""
        return self._columns.not_json if self._columns else []

    @property
    def nowhere(self) -> list[str]:
        """Columns asked for that no payload has, though there are payloads with others."""
        return self._columns.nowhere if self._columns else []

    @property
    def keys(self) -> list[str]:
        """What payloads have, as far as it was looked at."""
        return list(self._columns.keys) if self._columns else []

    def add(self, batch: Batch) -> None:
        """Take a batch."""
        self._seqs += batch.seqs
        self._subjects += batch.subjects
        self._times += batch.times
        if self._columns is not None:
            self._columns.add(batch.seqs, batch.data)
        else:
            self._headers += [headers_of(block) if block else None for block in batch.headers]
            self._data += batch.data

    def frame(self) -> pd.DataFrame:
        """Build the DataFrame: seq, subject, time, and either headers and data or the payload's columns."""
        columns: dict[str, Any] = {
            "seq": np.array(self._seqs, dtype=np.int64),
            "subject": pd.array(self._subjects, dtype="str"),
            "time": pd.to_datetime(np.array(self._times, dtype=np.int64), unit="ns", utc=True),
        }
        if self._columns is None:
            columns["headers"] = pd.Series(self._headers, dtype=object)
            columns["data"] = pd.Series(self._data, dtype=object)
        else:
            _refuse_hidden(list(self._columns.values))
            columns |= {name: pd.Series(values) for name, values in self._columns.values.items()}
        return pd.DataFrame(columns)


class Parsed:
    """The columns that JSON payloads have, with None where one has no such key."""

    def __init__(self, names: Sequence[str], all_names: bool) -> None:
        self.values: dict[str, list[Any]] = {name: [] for name in names}
        self.not_json: list[int] = []
        self._all = all_names
        self._rows = 0
        self._missed = set(names)
        self.keys: dict[str, None] = {}
        """Keys of payloads, looked at until each name was found."""

    @property
    def nowhere(self) -> list[str]:
        """Names asked for that no payload has, though there are payloads with others."""
        return [name for name in self.values if name in self._missed] if self.keys else []

    def add(self, seqs: Sequence[int], payloads: Sequence[bytes]) -> None:
        """Parse a batch. Only what is asked for stays in memory."""
        objects = [self._object(seq, data) for seq, data in zip(seqs, payloads, strict=True)]
        if self._missed:
            self.keys |= {key: None for found in objects for key in found}
            self._missed -= self.keys.keys()
        if self._all:
            for name in dict.fromkeys(name for found in objects for name in found):
                self.values.setdefault(name, [None] * self._rows)
        for name, values in self.values.items():
            values += [found.get(name) for found in objects]
        self._rows += len(objects)

    def _object(self, seq: int, data: bytes) -> dict[str, Any]:
        try:
            found = json.loads(data.decode())
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        self.not_json.append(seq)
        return {}
