"""The space of CNNs."""

from __future__ import annotations

from pipeline.data.spec import DataSpec
from pipeline.models.cnn import CNNConfig, max_stages
from search_spaces.suggester import Suggester


def suggest_cnn(s: Suggester, spec: DataSpec) -> CNNConfig:
    """Channels that double while the map halves, up to two convolutions a stage and small kernels as in VGG (arXiv
    1409.1556); first stages up to 64 wide and the residual option as in ResNet (arXiv 1512.03385); global averaging
    after Network in Network (arXiv 1312.4400); the larger kernels are for sequences above all, where they are cheap
    (arXiv 1611.06455 uses 8, 5 and 3)."""
    if spec.kind == "text":
        return _suggest_text_cnn(s, spec)
    side = spec.n_steps if spec.has_steps else min(spec.height, spec.width)
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


def _suggest_text_cnn(s: Suggester, spec: DataSpec) -> CNNConfig:
    """Few stages, kernels of 3 to 7 words, up to hundreds of channels, and the maximum over all positions, which Zhang
    and Wallace found best (arXiv 1510.03820); vectors of 32 to 128 values, because they are learned here from a few
    thousand texts (300 are usual for pre-trained ones)."""
    return CNNConfig(
        n_stages=s.integer("cnn.n_stages", 1, min(3, max_stages(spec))),
        width=s.integer("cnn.width", 16, 256, log=True),
        convs_per_stage=s.integer("cnn.convs_per_stage", 1, 2),
        kernel_size=s.choice("cnn.kernel_size", (3, 5, 7)),
        norm=s.choice("cnn.norm", ("none", "batch")),
        activation=s.choice("cnn.activation", ("relu", "gelu", "silu")),
        residual=s.choice("cnn.residual", (False, True)),
        head="max",
        d_head=s.choice("cnn.d_head", (0, 64, 128, 256)),
        dropout=s.number("cnn.dropout", 0.0, 0.5),
        d_embedding=s.choice("cnn.d_embedding", (32, 64, 128)),
    )
