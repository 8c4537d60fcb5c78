import time, os
from ftlib import serving, tracking, state
def test_x(packed):
    home=state.home()
    folder=packed("single")
    t=time.perf_counter()
    tracking.initialise(); print("init",time.perf_counter()-t); t=time.perf_counter()
    r=tracking.register(folder,digest="a"*64,name="support",alias="champion",metrics={"test_accuracy":.9},tags={"x":"y"})
    print(r,time.perf_counter()-t); t=time.perf_counter()
    r=tracking.register(folder,digest="a"*64,name="support",alias="champion",metrics={"test_accuracy":.9},tags={"x":"y"})
    print(r,time.perf_counter()-t); t=time.perf_counter()
    j=tracking.Journal.start(home,experiment="sst2",run_name="r")
    j.register(folder,digest="b"*64,name="support",alias="champion",metrics={"test_accuracy":.9}); j.finish()
    s=tracking.send(j); print(s,time.perf_counter()-t); t=time.perf_counter()
    print(serving.resolve("models:/support@champion"),serving.resolve("models:/support/1"),serving.resolve("runs:/"+s.run_id))
    os.system(f"find {home}/mlflow/artifacts -maxdepth 6 | grep -v ftlib/")
    os.system(f"cat {home}/mlflow/artifacts/sst2/models/*/artifacts/MLmodel {home}/mlflow/artifacts/sst2/models/*/artifacts/requirements.txt")
    os.system(f"rm -rf /tmp/m/home; cp -r {home} /tmp/m/home")
    import mlflow
    mlflow.set_tracking_uri(state.tracking_uri()); mlflow.set_registry_uri(state.tracking_uri())
    t=time.perf_counter()
    m=mlflow.pyfunc.load_model("models:/support@champion"); print("load",time.perf_counter()-t)
    import pandas as pd
    print(m.predict(pd.DataFrame({"text":["i was charged",None]})))
