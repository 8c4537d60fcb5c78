"""The registered model as MLflow loads and serves it: a script that MLflow runs ("models from code"), no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class ServedModel(PythonModel):
    """A packed model behind MLflow's pyfunc interface."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the packed model that was logged beside this script."""
        from ftlib.serving import answering

        self.served = answering.load(Path(context.artifacts["model"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one answer a row, as `ftlib.serving.Served.predict` does; null, not NaN, which is no JSON."""
        answers = self.served.predict(model_input)
        return answers.astype(object).where(answers.notna(), None)


set_model(ServedModel())
