"""What is done for each kind of job.

registry       per kind: the function the child calls and what the worker stores
export_subnet  the child's side of an export; the only module here that needs torch
"""
