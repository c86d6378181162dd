"""One module an experiment: a frozen config, three profiles, and a run that returns a tidy table."""

from pudnet_lib.profiles import configure, current_profile

__all__ = ["configure", "current_profile"]
