"""Your own components. `{use: "custom.my_file:my_name"}` in params.yaml; every stage depends on this folder."""
