"""The encoders that there are: a name for ``model.kind``, and its class below ``headwater.models``.

A line here is all that a new one needs beside its own file. Names only, so that a config is checked without torch.
"""

ENCODERS = {
    "sasrec": "sasrec.SASRec",
    "relative": "sasrec.RelativeSASRec",
    "bert4rec": "bert4rec.Bert4Rec",
    "gru": "recurrent.GRU",
    "lstm": "recurrent.LSTM",
}
