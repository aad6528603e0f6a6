"""What a version of a served model consists of (saved_model.py).

signatures.py says what each computes; photo_graph.py reads photos in the graph, and scores.py makes scores
and labels there; requests.py and warmup.py make records of requests and replay them; version_folder.py lets
a version appear whole.
"""
