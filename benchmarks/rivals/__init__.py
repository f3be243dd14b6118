"""The servers beside which `serve_rivals` measures.

They need: pip install --no-deps fastapi==0.163.2 litserve==0.2.19 opentelemetry-api python-multipart pyzmq httpx
httpcore h11 anyio annotated-doc timm==1.0.31 torchvision==0.28.0.
"""
