"""Which subnet: the most accurate one within budgets. Numpy and `supernet.spaces` only.

It sees functions from rows to numbers, so it runs the same on predictors, tables and fakes.

problem        SearchProblem and Constraint: what is asked; SearchResult: what is answered
limits         the cheapest and dearest arch under an additive cost, exactly
feasibility    an arch within all budgets, repair of archs beyond one, and the answer where there is none
trials         archs tried so far: each predicted once, cheap costs first
evolution      the search
random_search  the baseline
"""
