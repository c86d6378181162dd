"""Batches of notebooks behind one door: papermill, engines, report pages, kernels; notebooks need none of it."""
