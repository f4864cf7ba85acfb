"""What every family's config has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ModelConfig(BaseModel):
    """Architecture choices of one family. Frozen; unknown fields are errors; every field is bounded, so that a config
    that comes from a stored model cannot ask for more memory than the bounds allow."""

    model_config = ConfigDict(frozen=True, extra="forbid")
