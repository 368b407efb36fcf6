"""Five ways to train a supernet, one module each.

rss                    random subnet sampling
progressive_shrinking  once-for-all: from the largest net to all of them, phase by phase
us_nets                universally slimmable networks: the sandwich rule and in-place distillation
pss_net                prioritized subnet sampling: pools of good subnets per amount of resource
netaug                 network augmentation: a tiny network inside wider ones
"""
