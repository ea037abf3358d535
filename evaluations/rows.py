"""Values that stay in JSON beside a run: what all of them have in common."""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, TypeAdapter, ValidationError

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]  # JSON has no nan


@dataclass(frozen=True, kw_only=True)
class Row:
    """Values that are written as an object of JSON, and read from it."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; nan becomes None."""

        def plain(value: Any) -> Any:
            return list(value) if isinstance(value, tuple) else value if value == value else None  # nan != nan

        return asdict(self, dict_factory=lambda pairs: {k: plain(v) for k, v in pairs})

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Raises ValueError where a field is missing or has a value of another type. Other keys are not read."""
        return read(cls, row)


@dataclass(frozen=True, kw_only=True)
class RowWithFiles(Row):
    """A row that has files beside it.

    Attributes:
        files: Their checksums by their names, by which one sees that they are of this row and not of another. Version
            0.4 gave none.
    """

    files: dict[str, int] = field(default_factory=dict)

    def with_files(self, files: Mapping[str, bytes | memoryview]) -> Self:
        """This row with the checksums of its files."""
        return replace(self, files={name: zlib.crc32(content) for name, content in files.items()})


@dataclass(frozen=True, kw_only=True)
class Measurement(Row):
    """What a verb, whose file it is in, found of an inverter."""

    verb: ClassVar[str]
    network_digest: str

    @classmethod
    def answer(cls) -> str:
        """What the verb gives, and its file is called by."""
        return cls.verb

    def is_of(self, tested: Any) -> bool:
        """Whether it is of the weights that were tested, and not of earlier ones."""
        return self.network_digest == tested.network_digest


@dataclass(frozen=True, kw_only=True)
class MeasurementOfDensity(Measurement):
    """One that asked the density too, and not the network alone."""

    density_digest: str

    def is_of(self, tested: Any) -> bool:
        return super().is_of(tested) and self.density_digest == tested.density_digest


def read(kind: Any, row: Mapping[str, Any]) -> Any:
    """A row of a kind from JSON's values. Raises ValueError as `Row.from_json`."""
    try:
        return _reader(kind).validate_json(json.dumps(row), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        given = "" if isinstance(first["input"], dict) else f", not {first['input']!r}"
        raise ValueError(": ".join([*map(str, first["loc"]), first["msg"] + given])) from error


_reader = cache(TypeAdapter)  # making one takes milliseconds, and there are as many rows as runs
