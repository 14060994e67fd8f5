"""Your own components, a folder for each kind: `{use: "custom.losses.my_file:my_name"}` in params.yaml.

A stage depends on the folders whose kinds it takes: a new loss runs distill and what follows, not the teacher.
"""
