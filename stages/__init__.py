"""The stages of dvc.yaml, one short file each: wiring only. `python -m stages NAME --help` tells what one takes."""
