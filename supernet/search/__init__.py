"""Which subnet: the most accurate one within budgets. Numpy and `supernet.spaces` only.

It sees functions from rows to numbers, so it runs the same on predictors, tables and fakes.

problem         SearchProblem, Constraint and Objective: what is asked; SearchResult: what is answered
limits          the cheapest and dearest arch under a cost, exactly
feasibility     an arch within all budgets, repair of archs beyond one, and the answer where there is none
surrogate       an additive model of an accuracy
additive_front  the exact front of two sums
archive         the best archs along an axis, from which others are bred
trials          archs tried so far: each evaluated once
proposals       archs to start from: fronts of additive models
evolution       the search around one budget
front           the search along all budgets
random_search   the baseline
"""
