"""The command line: it shows what the service says and passes on what people ask. It decides nothing."""
