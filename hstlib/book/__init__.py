"""What the chapters of the book are made of.

``paper`` is what the paper prints; ``tables`` and ``statistics`` put result rows beside it,
``architecture`` and ``diagrams`` read the built models, ``cost`` estimates the hours of a plan,
and ``plots`` draws. No other wing imports this one.
"""
