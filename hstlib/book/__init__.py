"""What the chapters of the book are made of.

``paper`` is what the paper prints; ``tables``, with the rows that ``selection`` admits, and
``statistics`` put result rows beside it. ``study`` compares trained models, ``findings`` says what
came out, ``compare`` compares any runs, ``changes`` says whether a run's code is the checkout's.
``ledger`` gives every claim its verdict. ``architecture``, ``diagrams``, ``audit`` and ``families``
read the built models and their counts, ``cost`` estimates the hours of a plan, and ``plots`` draws.
No other wing but the commands imports this one.
"""
