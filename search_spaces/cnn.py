"""The space of CNNs."""

from __future__ import annotations

from pipeline.data.spec import DataSpec
from pipeline.models.cnn import CNNConfig, max_stages
from search_spaces.suggester import Suggester


def suggest_cnn(s: Suggester, spec: DataSpec) -> CNNConfig:
    """Kernels of 3 to 7 and channels that double while the map halves as in VGG (arXiv 1409.1556) and ResNet
    (arXiv 1512.03385, which also gives the residual option); global averaging after Network in Network (arXiv 1312.4400,
    section 3.2); larger kernels for sequences, where they are cheap (arXiv 1611.06455 uses 8, 5 and 3). First-stage widths
    end at 64, ResNet's."""
    side = spec.n_steps if spec.kind == "sequence" else min(spec.height, spec.width)
    stem = {"stem_stride": s.choice("cnn.stem_stride", (1, 2, 4))} if side >= 24 else {}
    return CNNConfig(
        n_stages=s.integer("cnn.n_stages", 1, max_stages(spec)),
        width=s.integer("cnn.width", 8, 64, log=True),
        convs_per_stage=s.integer("cnn.convs_per_stage", 1, 2),
        kernel_size=s.choice("cnn.kernel_size", (3, 5, 7)),
        norm=s.choice("cnn.norm", ("none", "batch")),
        activation=s.choice("cnn.activation", ("relu", "gelu", "silu")),
        residual=s.choice("cnn.residual", (False, True)),
        head=s.choice("cnn.head", ("gap", "flatten")),
        d_head=s.choice("cnn.d_head", (0, 64, 128, 256)),
        dropout=s.number("cnn.dropout", 0.0, 0.5),
        **stem,
    )
