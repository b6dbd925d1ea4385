"""The density of a model, by the change of variables along its probability flow."""
