"""The recurrent layers against torch's own on packed sequences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pipeline.data.tensors import Inputs
from pipeline.models.lstm import LSTM, LSTMConfig, RecurrentLayer
from tests.models.examples import SPECS, make_batch


def packed_twin(layer: RecurrentLayer) -> nn.LSTM:
    """torch's bidirectional LSTM with the same weights."""
    assert isinstance(layer.ahead, nn.LSTM)
    assert isinstance(layer.back, nn.LSTM)
    twin = nn.LSTM(layer.ahead.input_size, layer.ahead.hidden_size, batch_first=True, bidirectional=True)
    back = {f"{name}_reverse": value for name, value in layer.back.state_dict().items()}
    twin.load_state_dict({**layer.ahead.state_dict(), **back})
    return twin


def test_both_directions_are_those_of_a_packed_sequence() -> None:
    inputs = make_batch(SPECS["sequence"]).inputs
    assert inputs.lengths is not None
    layer = RecurrentLayer(3, LSTMConfig(d_hidden=5, bidirectional=True))
    packed = pack_padded_sequence(inputs.x, inputs.lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(packed_twin(layer)(packed)[0], batch_first=True)
    valid = torch.arange(inputs.x.shape[1]) < inputs.lengths[:, None]
    torch.testing.assert_close(layer(inputs.x, inputs.lengths - 1)[valid], expected[valid])


def test_last_is_the_final_state_of_each_direction() -> None:
    inputs = make_batch(SPECS["sequence"]).inputs
    assert inputs.lengths is not None
    model = LSTM(LSTMConfig(d_hidden=5, bidirectional=True, pooling="last", dropout=0.0), SPECS["sequence"])
    layer = model.layers[0]
    assert isinstance(layer, RecurrentLayer)
    packed = pack_padded_sequence(inputs.x, inputs.lengths, batch_first=True, enforce_sorted=False)
    final = packed_twin(layer)(packed)[1][0]  # (directions, B, d_hidden)
    torch.testing.assert_close(model(inputs), model.head(torch.cat([final[0], final[1]], dim=1)))


@pytest.mark.parametrize(("pooling", "reduced"), [("mean", torch.mean), ("max", torch.amax)])
def test_pooling_is_over_valid_steps(pooling: str, reduced: Callable[[Tensor, int], Tensor]) -> None:
    inputs = make_batch(SPECS["sequence"]).inputs
    assert inputs.lengths is not None
    model = LSTM(LSTMConfig.model_validate({"pooling": pooling, "dropout": 0.0}), SPECS["sequence"])
    top_BTD = model.layers[0](inputs.x, inputs.lengths - 1)
    pooled = torch.stack([reduced(row[:length], 0) for row, length in zip(top_BTD, inputs.lengths, strict=True)])
    torch.testing.assert_close(model(inputs), model.head(pooled))


def test_an_image_is_read_row_by_row() -> None:
    image = SPECS["image"]
    torch.manual_seed(0)
    on_images = LSTM(LSTMConfig(), image).eval()
    rows = SPECS["sequence"].model_copy(
        update={"n_steps": image.height, "n_features": image.channels * image.width, "labels": image.labels}
    )
    torch.manual_seed(0)
    on_rows = LSTM(LSTMConfig(), rows).eval()
    x = make_batch(image, n=4).inputs.x
    steps = torch.stack([x[:, :, row].flatten(1) for row in range(image.height)], dim=1)
    torch.testing.assert_close(on_images(Inputs(x)), on_rows(Inputs(steps, None, torch.full((4,), image.height))))


def test_the_forget_gate_starts_open_and_recurrences_orthogonal() -> None:
    layer = RecurrentLayer(3, LSTMConfig(d_hidden=5)).ahead
    biases = layer.get_parameter("bias_ih_l0") + layer.get_parameter("bias_hh_l0")
    assert biases.tolist() == [0] * 5 + [1] * 5 + [0] * 10
    forget = layer.get_parameter("weight_hh_l0")[5:10]
    torch.testing.assert_close(forget @ forget.T, torch.eye(5), atol=1e-5, rtol=0)


def test_a_gru_has_no_forget_gate() -> None:
    layer = RecurrentLayer(3, LSTMConfig(d_hidden=5, cell="gru")).ahead
    assert not layer.get_parameter("bias_ih_l0").any()
