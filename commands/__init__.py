"""The verbs beside Lightning's: a question is a file in this folder, and a name here.

Each is a function of the trainer, whose run's folders get the answer, the model, its data, and arguments of its own,
which are the command line's, with their types, bounds and help.
"""

from commands.distances import distances
from commands.estimators import estimators
from commands.sample import sample
from commands.score import score
from commands.show import show

SHARED = (sample, distances)  # every process does a part
BY_FIRST_PROCESS = (score, estimators, show)
VERBS = (*SHARED, *BY_FIRST_PROCESS)
