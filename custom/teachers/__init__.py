"""Your teachers' files: weights (`teacher: {use: weights, file: custom/teachers/w.safetensors, ...}`) or checkpoints.

The stage `teacher` depends on this folder: a file that changes here makes a teacher anew (docs/teachers.md). Files that
lie elsewhere are pinned by `teacher.sha256`.
"""
