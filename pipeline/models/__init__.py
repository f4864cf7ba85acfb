"""The model families, by name. A new one is a line here and a space in `search_spaces`."""

from __future__ import annotations

from typing import Any, Final

from pipeline.models import cnn, lstm, mlp
from pipeline.models.base import Family

FAMILIES: Final[dict[str, Family[Any]]] = {family.name: family for family in (mlp.FAMILY, cnn.FAMILY, lstm.FAMILY)}
