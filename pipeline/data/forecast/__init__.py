"""Series over time as windows: so many steps of the past in, so many steps ahead out."""
