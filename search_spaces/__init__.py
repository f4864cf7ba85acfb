"""What a search may choose: typed functions from a `Suggester` to configs, with a source for each range."""

from __future__ import annotations

from search_spaces.narrow import Narrowed, check_overrides, parameter_names
from search_spaces.suggester import FixedSuggester, IntegerRange, NumberRange, Options, Range, Suggester, Value
from search_spaces.trial import SPACES, default_params, default_trial, families_for, suggest_trial

__all__ = [
    "SPACES",
    "FixedSuggester",
    "IntegerRange",
    "Narrowed",
    "NumberRange",
    "Options",
    "Range",
    "Suggester",
    "Value",
    "check_overrides",
    "default_params",
    "default_trial",
    "families_for",
    "parameter_names",
    "suggest_trial",
]
