"""The report of a search: one HTML page that loads nothing and runs nothing. Its charts are SVG drawn here, because
what drawing libraries write (scripts, or a style on every element) is what a strict content security policy forbids."""
