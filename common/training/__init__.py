"""Training that is the same run in either framework, and what is done with a trained net.

In come a row, a recipe and a data set; initial weights, batches and every draw are worked out here in numpy, and the
framework only steps. Out comes a run's folder, which the other framework can go on with, and scores.
"""
