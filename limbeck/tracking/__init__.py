"""MLflow: what came out. The only room that imports it, and only inside functions: it takes seconds.

    stages --> .limbeck/spool/*.jsonl --> runs.Replayer --> runs            (live in the flow, or after the fact)
    register --> registry: logged model --> version + lineage tags --> promotion: aliases --> ledger

Everything here can be cut off at any moment and begun again: runs carry the name of their spool file,
versions the identity of their content, and each is looked for before it is made. A server that is away costs
one probe and no result.
"""
