"""From clips to result rows.

``experiment`` is one training run from its settings to its row. It joins models and data with
``loop``, the training loop, which knows neither and stands on ``batches``, ``step``, ``device``,
``epochs`` and ``state`` (to resume a run). ``identity`` says what a run is, ``start`` which weights
it starts from, ``limit`` makes it a smoke test, ``finished`` says whether it is done, ``sealed``
guards files with a SHA-256, ``run_folder`` locks its folder, ``interruption`` handles signals,
``answers`` makes test results. ``checkpoint`` stores a model, ``evaluate`` scores videos,
``foreign`` those of other data sets, ``metrics`` computes accuracies and calibration,
``provenance`` records versions and commit, ``rows`` are the results on disk. ``plan`` lists the
runs of an experiment.
"""
