"""What people call: the offline LLM class, chat prompts and the command line."""
