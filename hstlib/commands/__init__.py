"""The commands of ``python -m hstlib``.

``data`` draws, fetches, checks and decodes data sets; ``models`` counts, trains, evaluates and
exports; ``plans`` checks a plan and compares result rows. ``output`` prints.
"""
