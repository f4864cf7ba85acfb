"""``search.space`` of the experiment file: narrow or pin a parameter of the built-in space by its name.

``[low, high]`` narrows the range of a number, a list narrows the options of a choice, and a single value pins a
parameter, which is then a constant and not suggested any more. A few are constants until a file names them
(`search_spaces.augmentation.ON_REQUEST`).
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.spec import DataSpec
from pipeline.errors import ConfigError
from search_spaces.augmentation import ON_REQUEST
from search_spaces.suggester import IntegerRange, NumberRange, Options, Range, Suggester, T, Value, plain
from search_spaces.trial import suggest_trial

REMEDY = "write [low, high] or a single value"


@dataclass(frozen=True, slots=True)
class Narrowed:
    """A suggester that asks another one within overridden ranges.

    Raises:
        ConfigError: from any question whose override breaks a rule; `check_overrides` finds that beforehand.
    """

    suggester: Suggester
    overrides: Mapping[str, Any]

    def integer(self, name: str, low: int, high: int, *, log: bool = False, step: int = 1) -> int:
        allowed = narrow(name, IntegerRange(low, high, log, step), self.overrides)
        if isinstance(allowed, IntegerRange):
            return self.suggester.integer(name, allowed.low, allowed.high, log=log, step=step)
        assert isinstance(allowed, int)
        return allowed

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        allowed = narrow(name, NumberRange(low, high, log), self.overrides)
        if isinstance(allowed, NumberRange):
            return self.suggester.number(name, allowed.low, allowed.high, log=log)
        assert isinstance(allowed, float)
        return allowed

    def choice(self, name: str, options: Sequence[T]) -> T:
        allowed = narrow(name, Options(tuple(options)), self.overrides)
        if isinstance(allowed, Options):
            return self.suggester.choice(name, [option for option in options if option in allowed])
        return next(option for option in options if option == allowed)


def narrow(name: str, built_in: Range, overrides: Mapping[str, Any]) -> Range | Value:
    """What is left of a parameter: its range, a narrower one, or the value it is pinned to.

    Raises:
        ConfigError: the override is of another type, or not within the built-in range.
    """
    if name not in overrides:
        return ON_REQUEST.get(name, built_in)
    override = overrides[name]
    if not isinstance(override, list | tuple):
        return _value(name, built_in, override)
    values = [_value(name, built_in, item) for item in override]
    if isinstance(built_in, Options):
        if not values or len(set(values)) != len(values):
            raise ConfigError(
                f"`search.space` {name} must list different options, but got {_shown(override)}",
                f"use some of {_shown(built_in.values)}",
            )
        return Options(tuple(values))
    if len(values) != 2 or not values[0] <= values[1]:  # type: ignore[operator]
        raise ConfigError(
            f"`search.space` {name} must be [low, high] with low <= high, but got {_shown(override)}", REMEDY
        )
    low, high = values
    if isinstance(built_in, IntegerRange):
        return IntegerRange(int(low), int(high), built_in.log, built_in.step)
    return NumberRange(float(low), float(high), built_in.log)


def _value(name: str, built_in: Range, value: object) -> Value:
    """A value of the parameter, in the parameter's own type. 1 stands for 1.0 too; nothing else is converted."""
    match built_in:
        case Options(values):
            for option in values:
                if option == value and (type(option) is type(value) or (type(option), type(value)) == (float, int)):
                    return option
        case NumberRange() if value in built_in:
            assert isinstance(value, int | float)
            return float(value)
        case IntegerRange() if value in built_in:
            assert isinstance(value, int)
            return value
    remedy = "use these or fewer of them" if isinstance(built_in, Options) else REMEDY
    raise ConfigError(f"`search.space` {name} must be {built_in}, but got {_shown(value)}", remedy)


def _shown(value: object) -> str:
    """A value as the experiment file would have it, cut to a readable length; strings in quotes."""
    text = f"[{', '.join(map(plain, value))}]" if isinstance(value, list | tuple) else plain(value)
    text = repr(value) if isinstance(value, str) else text
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True, slots=True)
class _Scout:
    """Answers with the first option or the low end, unless `path` says otherwise; notes what it was asked."""

    path: Mapping[str, Value]
    overrides: Mapping[str, Any]
    built_in: dict[str, Range] = field(default_factory=dict)

    def integer(self, name: str, low: int, high: int, *, log: bool = False, step: int = 1) -> int:
        value = self._answer(name, IntegerRange(low, high, log, step))
        assert isinstance(value, int)
        return value

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        value = self._answer(name, NumberRange(low, high, log))
        assert isinstance(value, float | int)
        return float(value)

    def choice(self, name: str, options: Sequence[T]) -> T:
        value = self._answer(name, Options(tuple(options)))
        return next(option for option in options if option == value)

    def corners(self, name: str) -> tuple[Value, ...]:
        """The values of a parameter in which the space may branch, within the overrides."""
        allowed = narrow(name, self.built_in[name], self.overrides)
        return allowed.corners if isinstance(allowed, IntegerRange | NumberRange | Options) else (allowed,)

    def _answer(self, name: str, built_in: Range) -> Value:
        known = self.built_in.setdefault(name, built_in)
        if known != built_in:
            raise ValueError(f"parameter {name} is {known} and {built_in} in one trial; give one of them another name")
        return self.path[name] if name in self.path else self.corners(name)[0]


def parameter_names(
    spec: DataSpec, families: Sequence[str], overrides: Mapping[str, Any] | None = None
) -> dict[str, Range]:
    """Every parameter that a trial of these families can have, with its built-in range.

    The space is explored from corner to corner, one parameter changed at a time: a parameter is found if it depends on
    one other, which may depend on one other in turn.

    Args:
        overrides: explore within these only.

    Raises:
        ConfigError: an override is not within the built-in range.
        ValueError: the space itself gives one name two ranges.
    """
    found: dict[str, Range] = {}
    paths: deque[dict[str, Value]] = deque([{}])
    tried: set[tuple[str, Value]] = set()
    while paths:
        path = paths.popleft()
        scout = _Scout(path, overrides or {})
        suggest_trial(scout, spec, families, 0)
        for name, built_in in scout.built_in.items():
            if found.setdefault(name, built_in) != built_in:
                raise ValueError(f"parameter {name} is {found[name]} and {built_in}; give one of them another name")
            for value in scout.corners(name):
                if (name, value) not in tried:
                    tried.add((name, value))
                    paths.append({**path, name: value})
    return found


def check_overrides(overrides: Mapping[str, Any], spec: DataSpec, families: Sequence[str]) -> None:
    """Look at all of ``search.space`` before anything is trained.

    Raises:
        ConfigError: a name the space does not have, a value outside its range or of another type, or a parameter that
            the other overrides make unreachable.
    """
    names = parameter_names(spec, families)
    for name in overrides:
        if name not in names:
            close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
            known = f"did you mean {close[0]}?" if close else f"the parameters are {', '.join(sorted(names))}"
            what = f"`search.space` has no parameter {_shown(name)} for {spec.kind} data and {', '.join(families)}"
            raise ConfigError(what, known)
        narrow(name, names[name], overrides)
    unreachable = sorted(overrides.keys() - parameter_names(spec, families, overrides).keys())
    if unreachable:
        raise ConfigError(
            f"`search.space` narrows {unreachable[0]}, which no trial can have",
            f"remove {unreachable[0]}, or allow in the other entries what it belongs to",
        )
