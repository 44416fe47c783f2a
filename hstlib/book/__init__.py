"""What the chapters of the book are made of.

``paper`` is what the paper prints; ``tables``, with the rows that ``selection`` admits, and
``statistics`` put result rows beside it. ``study`` compares trained models, ``findings`` says what
came out, ``compare`` compares any runs, ``changes`` says whether a run's code is the checkout's.
``ledger`` gives every claim its verdict, ``specification`` compares readings of the paper.
``equations`` indexes the equations, ``model_map`` draws the model, ``player`` plays pictures,
``trained`` and ``inside`` look into a trained model. ``architecture``, ``diagrams``, ``audit`` and
``families`` read the built models and their counts, ``cost`` estimates the hours of a plan,
``origin`` says where rows are from, and ``plots`` draws.
No other wing but the commands imports this one.
"""
