"""How good a subnet will be. Predicting needs numpy alone, fitting scipy.

inputs            archs as what a predictor sees
gaussian_process  covariance of archs and the choice of its hyper-parameters
arch_process      a fitted process, fast on whole populations
accuracy          AccuracyPredictor: fit, predict, interval, save, load
evaluate          a predictor against accuracies it never saw
"""
