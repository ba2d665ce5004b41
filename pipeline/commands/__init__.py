"""The commands of ``lumbar``, mounted by ``pipeline.cli``: each imports what it needs only when it runs."""
