"""How good a subnet will be. Predicting needs numpy alone, fitting scipy.

predictor         Predictor: what every predictor offers
inputs            archs as what a fitted predictor sees
gaussian_process  covariance of archs and the choice of its hyper-parameters
arch_process      a fitted process, fast on whole populations
accuracy          AccuracyPredictor: fit, predict, interval, save
ofa_encodings     archs as what the reference project's predictors see
ofa_network       OfaPredictor: the reference project's network
corrected         CorrectedPredictor: the reference's network, corrected by measured subnets
evaluated         EvaluatedAccuracies: spaces so small that every arch was evaluated
fitting           fit_predictor: the kind of predictor that a space's size allows
storage           the file of a predictor
loading           load_predictor: any predictor from its file
evaluate          a predictor against accuracies it never saw
"""
