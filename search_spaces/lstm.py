"""The space of recurrent networks."""

from __future__ import annotations

from pipeline.data.spec import DataSpec
from pipeline.models.lstm import LSTMConfig
from search_spaces.suggester import Suggester


def suggest_lstm(s: Suggester, spec: DataSpec) -> LSTMConfig:
    """Units around the 20 to 200 of Greff et al. (arXiv 1503.04069: after the learning rate, width matters most); one
    to three layers, both directions and dropout after Reimers and Gurevych (arXiv 1707.06799); GRU after Chung et al.
    (arXiv 1412.3555). Words have vectors of 32 to 128 values: they are learned here from a few thousand texts."""
    text = {"d_embedding": s.choice("lstm.d_embedding", (32, 64, 128))} if spec.kind == "text" else {}
    return LSTMConfig(
        cell=s.choice("lstm.cell", ("lstm", "gru")),
        d_hidden=s.integer("lstm.d_hidden", 16, 256, log=True),
        n_layers=s.integer("lstm.n_layers", 1, 3),
        bidirectional=s.choice("lstm.bidirectional", (False, True)),
        pooling=s.choice("lstm.pooling", ("last", "mean", "max")),
        d_projection=s.choice("lstm.d_projection", (0, 32, 64, 128)),
        dropout=s.number("lstm.dropout", 0.0, 0.5),
        **text,
    )
