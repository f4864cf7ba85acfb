"""Words as vectors in front of every family: padding, and how far a batch is padded, have no influence."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pipeline.data.tensors import Inputs
from pipeline.models import FAMILIES
from search_spaces import SPACES
from tests.helpers import RandomSuggester
from tests.models.examples import SPECS, make_batch

SPEC = SPECS["text"]
each_family = pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if "text" in family.kinds])


def configs(name: str, n: int) -> list[object]:
    return [SPACES[name](RandomSuggester(seed), SPEC).model_copy(update={"dropout": 0.0}) for seed in range(n)]


@each_family
def test_padding_has_no_influence_not_even_in_training(name: str) -> None:
    inputs = make_batch(SPEC).inputs
    padded = Inputs(F.pad(inputs.x, (0, 5)), None, inputs.lengths)
    for config in configs(name, 20):
        torch.manual_seed(0)
        model = FAMILIES[name].build(config, SPEC)
        torch.testing.assert_close(model(padded), model(inputs), atol=1e-5, rtol=1e-4)


@each_family
def test_a_text_is_read_alone_as_among_longer_ones_and_may_be_longer_than_any_in_training(name: str) -> None:
    inputs = make_batch(SPEC.model_copy(update={"n_steps": 2 * SPEC.n_steps})).inputs
    assert inputs.lengths is not None
    for config in configs(name, 10):
        torch.manual_seed(0)
        model = FAMILIES[name].build(config, SPEC).eval()
        together = model(inputs)
        for i, length in enumerate(inputs.lengths.tolist()):
            own = Inputs(inputs.x[i : i + 1, :length], None, inputs.lengths[i : i + 1])
            torch.testing.assert_close(model(own)[0], together[i], atol=1e-5, rtol=1e-4)


@each_family
def test_padding_has_no_vector_after_training_either(name: str) -> None:
    """Weight decay leaves 0 at 0, and no gradient reaches it."""
    batch = make_batch(SPEC)
    model = FAMILIES[name].build(FAMILIES[name].default(SPEC), SPEC)
    table = next(value for key, value in model.named_parameters() if key.endswith("embedding.table.weight"))
    before = table.detach().clone()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(batch.inputs), batch.target).backward()
        optimizer.step()
    assert not bool(table[0].any())
    assert not torch.equal(table, before)
