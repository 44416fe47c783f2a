"""From clips to result rows.

``experiment`` is one training run from its settings to its row. It joins models and data with
``loop``, the training loop, which knows neither and stands on ``batches``, ``device``, ``epochs``
and ``state`` (to resume a run). ``identity`` says what a run is, ``finished`` whether it is done,
``sealed`` guards files with a SHA-256, ``interruption`` handles signals, ``answers`` makes test
results. ``checkpoint`` stores a model, ``evaluate`` scores videos, ``metrics`` computes
accuracies and calibration, ``provenance`` records versions and commit, ``rows`` are the results on
disk. ``plan`` lists the runs of an experiment, and ``export`` writes a model as ONNX.
"""
