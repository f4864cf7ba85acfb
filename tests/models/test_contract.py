"""What every family promises. A new family joins by being in `FAMILIES` and `SPACES`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from pydantic import ValidationError
from torch import Tensor

from pipeline.data.spec import DataSpec
from pipeline.data.tensors import Inputs, Part
from pipeline.models import FAMILIES
from pipeline.models.base import Model, ModelConfig
from search_spaces import SPACES
from tests.helpers import RandomSuggester
from tests.models.examples import N_STEPS, SPECS, make_batch, regression

CASES = [pytest.param(name, kind, id=f"{name}-{kind}") for name, f in FAMILIES.items() for kind in sorted(f.kinds)]
each_case = pytest.mark.parametrize(("name", "kind"), CASES)
each_family = pytest.mark.parametrize("name", list(FAMILIES))
each_sequence_family = pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if "sequence" in f.kinds])


def build(name: str, spec: DataSpec, seed: int = 0, config: ModelConfig | None = None) -> Model:
    torch.manual_seed(seed)
    return FAMILIES[name].build(config or FAMILIES[name].default(spec), spec)


def undropped(config: ModelConfig) -> ModelConfig:
    return config.model_copy(update={"dropout": 0.0})


def loss_of(model: Model, batch: Part) -> Tensor:
    loss = F.mse_loss if batch.target.is_floating_point() else F.cross_entropy
    return loss(model(batch.inputs), batch.target)


def random_configs(name: str, spec: DataSpec, n: int) -> list[ModelConfig]:
    return [SPACES[name](RandomSuggester(seed), spec) for seed in range(n)]


@each_case
def test_outputs_are_one_logit_a_class_or_one_value_or_one_a_step_ahead(name: str, kind: str) -> None:
    spec = SPECS[kind]
    assert build(name, spec)(make_batch(spec).inputs).shape == (16, 3)
    assert build(name, regression(spec))(make_batch(spec).inputs).shape == (16, 1)


@each_case
def test_one_batch_can_be_learned_by_heart(name: str, kind: str) -> None:
    spec = SPECS[kind]
    batch = make_batch(spec)
    model = build(name, spec, config=undropped(FAMILIES[name].default(spec)))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.01
    if not spec.is_quantity:
        assert bool((model(batch.inputs).argmax(1) == batch.target).all())


@each_case
def test_the_gradient_reaches_every_parameter(name: str, kind: str) -> None:
    spec = SPECS[kind]
    model = build(name, spec)
    loss_of(model, make_batch(spec)).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert silent == []


@each_case
def test_the_seed_decides_the_weights(name: str, kind: str) -> None:
    spec, inputs = SPECS[kind], make_batch(SPECS[kind]).inputs
    first, again, other = (build(name, spec, seed).eval()(inputs) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@each_case
def test_a_config_survives_json(name: str, kind: str) -> None:
    config = FAMILIES[name].default(SPECS[kind])
    assert FAMILIES[name].config.model_validate_json(config.model_dump_json()) == config


@each_family
def test_every_number_of_a_config_is_bounded_on_both_sides(name: str) -> None:
    config = FAMILIES[name].config
    for field, info in config.model_fields.items():
        if info.annotation not in (int, float):
            continue
        low = next(m.ge for m in info.metadata if isinstance(m, Ge))
        high = next(m.le for m in info.metadata if isinstance(m, Le))
        for value in (low - 1, high + 1):
            with pytest.raises(ValidationError, match=field):
                config.model_validate({field: value})


@each_family
def test_a_config_refuses_unknown_fields_and_changes(name: str) -> None:
    config = FAMILIES[name].config
    with pytest.raises(ValidationError, match="n_wings"):
        config.model_validate({"n_wings": 2})
    with pytest.raises(ValidationError, match="frozen"):
        config().dropout = 0.3  # type: ignore[attr-defined]


@each_case
def test_a_row_is_predicted_alone_as_in_a_batch(name: str, kind: str) -> None:
    spec, inputs = SPECS[kind], make_batch(SPECS[kind]).inputs
    model = build(name, spec).eval()
    together = model(inputs)
    alone = torch.cat([model(inputs.take(slice(i, i + 1))) for i in range(16)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)


@each_case
def test_any_member_of_the_space_trains_and_predicts(name: str, kind: str) -> None:
    spec, batch = SPECS[kind], make_batch(SPECS[kind])
    for config in random_configs(name, spec, 50):
        model = build(name, spec, config=config)
        loss_of(model, batch).backward()
        assert all(p.grad is not None for p in model.parameters()), config
        assert bool(model.eval()(batch.inputs).isfinite().all()), config


@each_case
def test_training_works_in_bfloat16_too(name: str, kind: str) -> None:
    spec, batch = SPECS[kind], make_batch(SPECS[kind])
    for config in random_configs(name, spec, 10):
        model = build(name, spec, config=config)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, batch)
        loss.backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters()), config


@each_sequence_family
def test_padding_has_no_influence_not_even_in_training(name: str) -> None:
    """In training mode this covers the statistics of batch normalisation too."""
    spec, inputs = SPECS["sequence"], make_batch(SPECS["sequence"]).inputs
    padded = Inputs(F.pad(inputs.x, (0, 0, 0, 5)), None, inputs.lengths)
    for config in random_configs(name, spec, 40):
        model = build(name, spec, config=undropped(config))
        torch.testing.assert_close(model(padded), model(inputs), atol=1e-5, rtol=1e-4)


@each_sequence_family
def test_a_short_sequence_needs_no_padding_at_all(name: str) -> None:
    spec, inputs = SPECS["sequence"], make_batch(SPECS["sequence"]).inputs
    assert inputs.lengths is not None
    for config in random_configs(name, spec, 20):
        model = build(name, spec, config=config).eval()
        together = model(inputs)
        for i, length in enumerate(inputs.lengths.tolist()):
            own = Inputs(inputs.x[i : i + 1, :length], None, inputs.lengths[i : i + 1])
            torch.testing.assert_close(model(own)[0], together[i], atol=1e-5, rtol=1e-4)


@each_sequence_family
def test_a_sequence_may_be_longer_than_any_in_training(name: str) -> None:
    spec = SPECS["sequence"]
    longer = make_batch(spec.model_copy(update={"n_steps": 2 * N_STEPS})).inputs
    for config in random_configs(name, spec, 10):
        assert bool(build(name, spec, config=config).eval()(longer).isfinite().all())


@each_case
def test_weights_can_be_stored_as_they_are(name: str, kind: str) -> None:
    """safetensors refuses tensors that are not contiguous or share memory."""
    state = build(name, SPECS[kind]).state_dict()
    assert all(tensor.is_contiguous() for tensor in state.values())
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


GOLDEN: dict[tuple[str, str], tuple[float, ...]] = {
    ("mlp", "image"): (1.08191, 1.03244, 0.99412, 0.95867, 0.92442),
    ("mlp", "sequence"): (1.09679, 1.07214, 1.04978, 1.02891, 1.00908),
    ("mlp", "tabular"): (1.10062, 1.09381, 1.08725, 1.08091, 1.07476),
    ("cnn", "image"): (1.08847, 1.02306, 0.96258, 0.90659, 0.85467),
    ("cnn", "sequence"): (1.0891, 1.07811, 1.06756, 1.0574, 1.04758),
    ("lstm", "image"): (1.09832, 1.09445, 1.0906, 1.08676, 1.08295),
    ("lstm", "sequence"): (1.10133, 1.10045, 1.09957, 1.09869, 1.09782),
    ("mlp", "forecast"): (0.96696, 0.79169, 0.72124, 0.65882, 0.60286),
    ("cnn", "forecast"): (0.9271, 0.89954, 0.88062, 0.86604, 0.85369),
    ("lstm", "forecast"): (0.93008, 0.92601, 0.92202, 0.91809, 0.91423),
    ("mlp", "text"): (1.09833, 1.09805, 1.09778, 1.0975, 1.09723),
    ("cnn", "text"): (1.09627, 1.07895, 1.06389, 1.04939, 1.03512),
    ("lstm", "text"): (1.0985, 1.09835, 1.0982, 1.09805, 1.0979),
}


@each_case
def test_training_follows_the_recorded_losses(name: str, kind: str) -> None:
    """Five steps of SGD without dropout. A change that is not meant to change results leaves these numbers alone; for
    one that is, print them and record them anew. A family without a record is not compared."""
    if (name, kind) not in GOLDEN:
        pytest.skip(f"no losses are recorded for {name} on {kind} data")
    spec, batch = SPECS[kind], make_batch(SPECS[kind])
    model = build(name, spec, config=undropped(FAMILIES[name].default(spec)))
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses == pytest.approx(GOLDEN[name, kind], abs=1e-4)
