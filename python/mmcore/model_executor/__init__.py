"""Models and how they are loaded and run. The registries of the seeds live in ``models``."""
