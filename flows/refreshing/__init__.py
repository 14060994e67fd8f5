"""What a refresh is made of; `flows.refresh` runs it.

rounds       a workspace's turn: requests, then target after target
windows      what landed becomes windows, and each a version of the data
hearing      what devices tell of their use, which is said and no more
standing     the champion, where it was made, what it learned from
climbing     looks, rungs, gate: up to the challenger that passes
shipping     its exam, a person's yes (approval), registered, champion or canary
requesting   a target that is new, or a budget that changed
"""
