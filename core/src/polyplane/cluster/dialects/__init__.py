"""One module a policy API: validation, defaults and translation, as its API server would do them."""
