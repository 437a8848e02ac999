"""Train, export and evaluate the tiny LLaVA that ships inside mmcore."""
