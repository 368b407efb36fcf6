"""Background work: durable, cancellable, done in a child process.

states         what a job can be, and what it carries
queue          enqueue, cancel, find lost jobs; the only module that knows the queue library
folder_lock    one worker per data folder
worker         takes jobs from the queue and records what came of them
warm_child     the worker's handle on its child process
child          the child process; the only one that imports torch
parent_death   a process ends when its parent does
handlers       per kind of job: what the child calls and what the worker stores
"""
