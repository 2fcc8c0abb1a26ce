"""The nouns of Gridtide: frozen values without behaviour of their own. Imports nothing from the other rooms."""
