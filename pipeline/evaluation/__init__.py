"""The one reading of the sealed test: finalists, their scores with intervals, and the gates of a promotion."""
