"""What the service does, one transaction each. No HTTP, no torch, no SQL of its own.

catalog         bundles, predictors and estimators, kept in memory
supernets       what can be searched
devices         hardware
latency_tables  registering and reading tables
limits          the fastest and the slowest subnet of a device
searches        the best subnet within a budget
deployments     from a subnet to a verified ONNX file
jobs            background work
shipped         what comes with the package
"""
