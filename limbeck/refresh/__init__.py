"""The least that repairs a model when the world has moved, and the proof that it does.

    rungs       what each step of the ladder is, as params of a workspace of its own, and what it costs
    gate        whether a challenger is better where the champion was bad, and no worse elsewhere
    requests    what a request (new classes, a new target, another budget) means for both

All of it is pure: values and figures in, values and verdicts out. Workspaces are run by flows.
"""
