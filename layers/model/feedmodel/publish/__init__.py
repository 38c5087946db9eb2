"""From a model in MLflow to a bundle.

registry, signing          fetch a model from MLflow and verify whose it is
tables, cells, float32     read users, items and pairs as the numbers that a model takes
admission, export          check the torch program and export it to ONNX
snapshot, golden           write the tables and the golden requests
parity, rows, batching     compare ONNX Runtime with torch; `tolerance` says how far they may differ
expected                   compare a bundle with a team's own scores; `comparison` has both,
                           `single_changes` and `reasons` say why they differ
past_requests              a table of requests as the queries that serving gets
signature, drafts          draft a spec from a model's signature, and explain one
manifest, build, upload    put the bundle together and copy it to S3 or a directory
promotion                  move the production alias
names, tracking            what things are called in MLflow, and where MLflow is
"""
