"""Publishing: which version serves whom, signed, so that a device trusts the keys and not the server.

    registry --> bundle --> place (files) --> targets --> snapshot --> timestamp      (metadata: The Update Framework)
                                |                                          |
                     an MLflow server, or a folder             whatever comes last makes it visible at once

`limbeck publish` and `rollback` sign with all keys but root's; `renew` with the two online ones alone. Everything can
be cut off at any moment and begun again: bundles lie under their digest, and until the timestamp is written no
device sees anything of an edit.
"""
