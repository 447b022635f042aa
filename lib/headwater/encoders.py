"""The available encoders: the name used in ``model.kind`` and the class below ``headwater.models``.

A new encoder needs its own file and one line here. The module holds names only, so a config can be checked without torch.
"""

ENCODERS = {
    "sasrec": "sasrec.SASRec",
    "relative": "sasrec.RelativeSASRec",
    "bert4rec": "bert4rec.Bert4Rec",
    "gru": "recurrent.GRU",
    "lstm": "recurrent.LSTM",
}
