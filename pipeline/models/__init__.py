"""The model families, by name. A new one is a line here and a space in `search_spaces`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from pipeline.models import cnn, cnn_stack, lstm, lstm_stack, mlp, mlp_stack
from pipeline.models.base import Family

_ALL: Final[tuple[Family[Any], ...]] = (
    replace(mlp.FAMILY, stack=mlp_stack.STACK),
    replace(cnn.FAMILY, stack=cnn_stack.STACK),
    replace(lstm.FAMILY, stack=lstm_stack.STACK),
)
FAMILIES: Final[dict[str, Family[Any]]] = {family.name: family for family in _ALL}
