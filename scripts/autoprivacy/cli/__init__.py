"""The commands of `python -m autoprivacy`."""
