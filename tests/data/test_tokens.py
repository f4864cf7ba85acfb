"""Texts as codes of words: fitted on training texts, plain JSON, and raw strings in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter

from pipeline.data.assemble import assemble
from pipeline.data.config import DataConfig
from pipeline.data.prepare import prepare
from pipeline.data.preprocess import Preprocessor, TextPreprocessor
from pipeline.data.preprocess.tokens import MAX_STEPS, UNKNOWN, fit_tokens, tokens, vocabulary
from pipeline.data.source import read_features, read_source
from pipeline.errors import DataError

FITTED = TextPreprocessor(column="said", words=("the", "it's", "!", "00", "é"), n_steps=4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat, it's HERE!!! ...", ["the", "cat", ",", "it's", "here", "!!!", "..."]),
        ("call 0800-123 now", ["call", "0800", "-", "123", "now"]),
        ("Étage n’est 日本", ["étage", "n’est", "日本"]),
        ("  \t ", [""]),
        ("", [""]),
        ("a " * 1000, ["a"] * MAX_STEPS),
    ],
)
def test_words_are_in_lower_case_and_runs_of_a_mark_are_one(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_the_vocabulary_has_what_occurs_twice_the_most_frequent_first() -> None:
    words = ["b", "a", "b", "c", "a", "b", "2024", "2023", "007", "x1"]
    # 2024 and 2023 occur once each, but as numbers of four digits twice; so do no numbers of three.
    assert vocabulary(words) == ("b", "0000", "a")


def test_a_word_has_its_code_or_that_of_its_shape_or_is_unknown() -> None:
    inputs = FITTED.transform(["it's the 47", "The dog", "", "é é é é é é"])
    assert inputs.x.dtype == torch.int32
    assert inputs.x.tolist() == [
        [3, 2, 5, 0, 0, 0],
        [2, UNKNOWN, 0, 0, 0, 0],
        [UNKNOWN, 0, 0, 0, 0, 0],
        [6, 6, 6, 6, 6, 6],
    ]
    assert inputs.lengths is not None
    assert inputs.lengths.tolist() == [3, 2, 1, 6]


def test_raw_texts_come_as_strings_as_the_column_or_as_the_only_column() -> None:
    raw = ["it's the 47", "The dog"]
    expected = FITTED.transform(raw).x
    forms = [np.array(raw), np.array(raw, dtype=object), pd.DataFrame({"said": raw, "by": ["a", "b"]})]
    for form in (*forms, pd.DataFrame({"text": raw})):
        assert torch.equal(FITTED.transform(form).x, expected)
    missing = FITTED.transform(pd.DataFrame({"said": [None, "NA"]})).x  # as in any other column
    assert missing[:, 0].tolist() == [UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), "the table lacks the column 'said'"),
        ([["x", "y"]], "a text must be a string, but got a list"),
        (np.zeros((2, 3)), "a text must be a string, but got a ndarray"),
    ],
)
def test_rows_that_are_no_texts_are_an_error(rows: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FITTED.transform(rows)  # type: ignore[arg-type]


def test_a_fitted_tokenizer_is_plain_json() -> None:
    adapter: TypeAdapter[Preprocessor] = TypeAdapter(Preprocessor)
    again = adapter.validate_json(FITTED.model_dump_json())
    assert again == FITTED
    assert torch.equal(again.transform(["the 12 !"]).x, FITTED.transform(["the 12 !"]).x)


def test_texts_without_a_common_word_cannot_be_learned() -> None:
    with pytest.raises(DataError, match="no word of 'said' occurs in two places"):
        fit_tokens("said", ["one", "two three"])


def said(folder: Path, n: int = 60, **columns: object) -> Path:
    """A file of short texts, each with a word that no other has."""
    moods = np.array(["glad", "sad"])[np.arange(n) % 2]
    texts = [f"i am {mood} today {word}" for mood, word in zip(moods, unique_words(n), strict=True)]
    path = folder / "said.csv"
    pd.DataFrame({"said": texts, **columns, "mood": moods}).to_csv(path, index=False)
    return path


def unique_words(n: int) -> list[str]:
    return ["w" + "".join("abcdefghij"[int(digit)] for digit in str(i)) for i in range(n)]


def test_only_training_texts_decide_the_vocabulary(tmp_path: Path) -> None:
    path = said(tmp_path)
    config = DataConfig.model_validate(
        {"source": str(path), "target": "mood", "kind": "text", "split": {"by": "stratified"}}
    )
    data = read_source(config.source, Path(), "mood", "text")
    assert isinstance(data.features, pd.DataFrame)
    data.features["said"] = [f"{text} {text.split()[-1]}" for text in data.features["said"]]  # now in the row twice
    made = assemble(config, data, None)
    fitted = made.preprocessor
    assert isinstance(fitted, TextPreprocessor)
    train = {word for row in made.development.train.inputs.x.tolist() for word in row if word > 0}
    assert train == set(range(2, fitted.n_tokens))  # every word is one of the training part, and none there is unknown
    assert int((made.development.validation.inputs.x == UNKNOWN).sum()) == 2 * len(made.development.validation)
    n_common = len(("i", "am", "glad", "sad", "today"))
    assert made.development.spec.n_tokens == fitted.n_tokens == 2 + n_common + len(made.development.train)


def test_the_column_of_texts_is_found_among_others_or_named(tmp_path: Path) -> None:
    def prepared(**data: object) -> tuple[dict[str, str], list[str]]:
        config = DataConfig.model_validate({"source": str(path), "target": "mood", "kind": "text", **data})
        made = prepare(config, Path(), tmp_path / "store")
        return made.schema, [f.subject for f in made.findings if f.message == "is no part of the text: left out"]

    path = said(tmp_path, number=range(60), title=[f"a title of row {word}" for word in unique_words(60)])
    with pytest.raises(DataError, match="texts must stand in one column, but 2 of 'said', 'number', 'title' look like"):
        prepared()
    assert prepared(types={"title": "text"}) == ({"title": "text"}, ["said", "number"])
    assert prepared(types={"title": "drop"}) == ({"said": "text"}, ["number", "title"])
    (tmp_path / "x.ts").write_text("@data\n")
    with pytest.raises(DataError, match=r"the format holds sequence data, but data.kind is text"):
        read_features(str(tmp_path / "x.ts"), "text")
