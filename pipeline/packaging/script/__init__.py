"""A trial as a script that trains it again with torch, pandas, numpy and scikit-learn only.

`main`, `plan`, `reading`, `preparing`, `augmenting`, `training` and `scoring` are the script: ordinary modules that use
this package. `bundle` puts what they use of it in their place, so that the script is the code that trained; `write`
adds what a search settled.
"""
