"""Charts: one file each, from plain values to a figure that can be saved as PNG or SVG."""
