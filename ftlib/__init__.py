"""ftlib: the hybrid fine-tuning library. It knows neither Prefect nor the flow."""

__version__ = "0.1.0"
