"""What a search space asks: one parameter at a time, by name, from a range. In a search Optuna answers, for defaults a
`FixedSuggester`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

Value = bool | int | float | str
T = TypeVar("T", bound=Value)


class Suggester(Protocol):
    """Chooses values. Bounds are inclusive. In one study a name always has the same range."""

    def integer(self, name: str, low: int, high: int, *, log: bool = False, step: int = 1) -> int: ...

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def choice(self, name: str, options: Sequence[T]) -> T: ...


@dataclass(frozen=True, slots=True)
class IntegerRange:
    """``low, low + step .. high``."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    @property
    def corners(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    def __contains__(self, value: object) -> bool:
        return type(value) is int and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def __str__(self) -> str:
        return f"an integer from {self.low} to {self.high}" + (f" in steps of {self.step}" if self.step > 1 else "")


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Real numbers from low to high."""

    low: float
    high: float
    log: bool = False

    @property
    def corners(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    def __contains__(self, value: object) -> bool:
        return type(value) in {int, float} and self.low <= value <= self.high  # type: ignore[operator]

    def __str__(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Options:
    """Named alternatives, all of one type."""

    values: tuple[Value, ...]

    @property
    def corners(self) -> tuple[Value, ...]:
        return self.values

    def __contains__(self, value: object) -> bool:
        return any(type(value) is type(option) and value == option for option in self.values)

    def __str__(self) -> str:
        return f"one of {', '.join(map(plain, self.values))}"


Range = IntegerRange | NumberRange | Options
"""`corners` are the values in which a space may branch: every option, and the ends of a range."""


def plain(value: object) -> str:
    """A value as the experiment file writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class FixedSuggester:
    """Answers from `values`, and keeps in `asked` what the space wanted to know."""

    values: Mapping[str, Value]
    asked: dict[str, Value] = field(default_factory=dict)

    def integer(self, name: str, low: int, high: int, *, log: bool = False, step: int = 1) -> int:
        value = self._answer(name, IntegerRange(low, high, log, step))
        assert isinstance(value, int)
        return value

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        value = self._answer(name, NumberRange(low, high, log))
        assert isinstance(value, int | float)
        return float(value)

    def choice(self, name: str, options: Sequence[T]) -> T:
        value = self._answer(name, Options(tuple(options)))
        return options[list(options).index(value)]  # type: ignore[arg-type]

    def _answer(self, name: str, allowed: Range) -> Value:
        if name not in self.values:
            raise ValueError(f"the space asks for {name}, {allowed}, and no value is fixed for it")
        value = self.values[name]
        if value not in allowed:
            raise ValueError(f"{name} must be {allowed}, but is fixed to {value!r}")
        self.asked[name] = value
        return value
