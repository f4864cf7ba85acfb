"""The space of recurrent networks."""

from __future__ import annotations

from pipeline.data.spec import DataSpec
from pipeline.models.lstm import LSTMConfig
from search_spaces.suggester import Suggester


def suggest_lstm(s: Suggester, spec: DataSpec) -> LSTMConfig:
    """After Greff et al. (arXiv 1503.04069, section IV: 20 to 200 units, the rate matters most and width next) and Reimers
    and Gurevych (arXiv 1707.06799, section 7: one or two layers, both directions, dropout 0 to 0.5); GRU as in Chung et al.
    (arXiv 1412.3555)."""
    return LSTMConfig(
        cell=s.choice("lstm.cell", ("lstm", "gru")),
        d_hidden=s.integer("lstm.d_hidden", 16, 256, log=True),
        n_layers=s.integer("lstm.n_layers", 1, 3),
        bidirectional=s.choice("lstm.bidirectional", (False, True)),
        pooling=s.choice("lstm.pooling", ("last", "mean", "max")),
        d_projection=s.choice("lstm.d_projection", (0, 32, 64, 128)),
        dropout=s.number("lstm.dropout", 0.0, 0.5),
    )
