"""Programs and expressions as text: rules, equations, LaTeX, cards, graphs."""
