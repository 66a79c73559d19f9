"""The command line: one file a command; `main` puts them together and turns errors into one paragraph."""
