"""What can be built. Standard library and numpy only.

arch       one choice, a frozen value
blocks     one concrete block with its shapes, MACs and parameters
stage      a run of blocks with its choices; the only shape arithmetic
space      every choice of a supernet; sampling, mutation and crossover on rows of choice indices
costs      sums and peaks over blocks for whole populations
norms      the normalisation layers an arch runs
buckets    random archs of a given cost
encoding   archs as vectors for predictors
families   the spaces of the field
presets    these by name, and a user's own from a file
fixed      the space of one arch, and the wider one that NetAug trains it in
ratios     width ratios to archs
ofa_dicts  the reference project's architecture dictionaries
arch_csv   archs as CSV
"""
