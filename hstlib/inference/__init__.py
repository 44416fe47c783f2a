"""Use of trained models: prediction, export.

``predictor`` classifies video files (:func:`hstlib.load` returns one). For a camera, a network
stream or a long file, ``source`` decodes frames as they arrive and ``stream`` makes sliding windows
of them. ``export`` writes a model as ONNX, with its ``preprocessing`` in the metadata and a
``golden`` clip beside it.
"""
