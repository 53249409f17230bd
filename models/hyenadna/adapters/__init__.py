"""Small trained additions to a frozen model: LoRA and soft prompts, in memory and as files.

Both engines and the plain model take them in: a layer with LoRA has its effective weight where others have
theirs, and a soft prompt stands before the embedded tokens.
"""
