"""One file a group of formats: each turns a `Request` into a `Dataset`. `pipeline.data.source` has their table."""
