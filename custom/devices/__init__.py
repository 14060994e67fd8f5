"""Your devices: `def mine(files, threads, batch_size, measure, progress, *, host: str) -> dict`.

The answers of `limbeck-edge bench --json` belong here, too: `device: {use: result, file: custom/devices/phone.json}`.
"""
