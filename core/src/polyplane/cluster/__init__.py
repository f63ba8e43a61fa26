"""1. What the cluster says: model, sources, dialects (one module a policy API), store."""
