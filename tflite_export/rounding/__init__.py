"""Where and how an int8 file rounds, for a model that trains with it (quantize_aware.py).

calls.py sees which layer reads what another wrote; rules.py says what TFLite does with each kind of layer,
activations.py with each activation; placement.py decides from both what is rounded where; quantizers.py
rounds; layers.py lets a layer's call do so.
"""
