"""The data room: a source becomes a `Dataset`, a split, prepared tensors and a sealed test.

``source -> Dataset -> Split -> fitted Preprocessor -> (Development, SealedTest) + DataSpec``. The entry points are
`pipeline.data.prepare.prepare` for a search, `pipeline.data.development.load_development` for its workers, and
`pipeline.data.source.read_features` with a stored `Preprocessor` for prediction.
"""
