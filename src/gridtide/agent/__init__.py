"""What runs in a machine: one file that needs nothing but Python 3.8 or later and knows nothing of the rest."""
