"""From video files to clips.

``datasets`` reads the lists of a data set, ``video`` decodes a file, ``flow`` computes optical
flow, ``clips`` cuts and normalises clips, ``store`` keeps them on disk, and ``loader`` with
``augment`` gives them to training. ``download``, ``unpack``, ``verify`` and ``inspection`` get a
data set and check it; ``leakage`` measures a split; ``demo`` and ``scenes`` draw the demo corpora;
``overlay`` writes a label into a video.
"""
