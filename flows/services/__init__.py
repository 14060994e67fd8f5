"""What runs by itself: `make up`.

servers      Prefect, MLflow, worker and listener on loopback, until interrupted
deploy       prefect.yaml's deployments, the pool, the webhook
listen       one process that hears of what happens outside, and announces it as events (announcing)
landing    data in drop folders
hook       the registry's webhook
tending    runs whose process is gone
"""
