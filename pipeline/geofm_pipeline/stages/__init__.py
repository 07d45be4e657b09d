"""The stages of the main job, in order: inputs, search, plan, respond, write, publish.

Each stage takes the folder and what the stage before gave, commits its table, and does nothing but load that table when
it was committed before.
"""
