"""MLflow: where runs are recorded and models registered. The only importer of mlflow's tracking and registry.

A run is written to a local journal first and sent afterwards, so tracking trouble never stops training and
nothing is lost. What the flow does:

    tracking.send_pending(home)                          # what earlier runs could not send; ends killed ones
    journal = tracking.Journal.start(home, experiment=..., run_name=..., params={...}, tags={...})
    child = journal.child("train-full", kind="stage", params={...}, artifact=digest)
    journal.metrics(child, None, {"test_accuracy": .91})  # figures; a step number instead of None makes a curve
    journal.history(child, rows)                         # a whole learning curve, rows of history.json
    journal.log_data(child, "sst2/train", digest, context="training", rows=67349)
    journal.finish(child)                                # or status="FAILED"
    journal.child("train-lora", kind="stage", cached=True, source_run=reference, metrics={...}, ...)
    journal.log_file(None, report)                       # None is the parent run
    journal.register(folder, digest=..., name=..., alias=...)
    journal.finish(None)
    sent = tracking.send(journal)                        # Sent, or None and one warning line

``journal.reference(child)`` names a run for good before MLflow knows it: keep it in ``KeyRecord.details`` and
give it as `source_run` when the step is cached. `send` may be called at any time, also between steps.

mlflow takes 2 seconds to import: that happens inside `send`, `register`, `download` and `initialise` only,
after a quick look whether the server or database answers.
"""

from ftlib.tracking.journal import RUN, Journal
from ftlib.tracking.registry import Registered, download, register
from ftlib.tracking.sending import Sent, send, send_pending
from ftlib.tracking.store import initialise

__all__ = ["RUN", "Journal", "Registered", "Sent", "download", "initialise", "register", "send", "send_pending"]
