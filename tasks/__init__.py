"""The pipeline's steps, each one Prefect task: thin classes that open inputs, call ftlib and write a draft."""
