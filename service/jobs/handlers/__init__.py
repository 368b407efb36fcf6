"""What is done for each kind of job.

registry             per kind: the function the child calls and what the worker stores
ordered_bundle       the bundle a job of the long lane was ordered for
export_subnet        the child's side of an export
evaluate_population  the child's side of a population
fit_predictor        the child's side of a predictor

Only the last three need torch.
"""
