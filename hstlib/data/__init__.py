"""From video files to clips.

``datasets`` reads a data set at one split (``samples``): from the lists of HMDB51, UCF101 and
J-HMDB (``official``), from a list of your own (``lists``) or from folders (``layouts``, and
``naming`` for the sources of their files); ``adopt`` (with ``guess``) shows what a folder is.
``container`` opens a file and ``video`` decodes it (``times``: when a frame is shown, ``pictures``:
how), ``flow`` computes optical flow, ``clips`` cuts and normalises clips, ``store`` keeps them on
disk in ``shards`` behind an ``index``, and ``loader`` with ``augment`` gives them to training.
``cache`` says where they lie, checks them and removes what
is not needed.

``download`` (from ``sources``, over a ``connection``), ``unpack``, ``verify`` and ``inspection``
get a data set and check it, with ``progress``; ``leakage`` and ``shortcuts`` measure a split,
``reports`` keeps what they measured; ``demo`` and ``scenes`` draw the demo corpora; ``overlay``
writes a label into a video.
"""
