"""Names that options choose among, apart from what they stand for, which is slow to import."""

from typing import Literal

ComputeDtype = Literal["float32", "bfloat16"]
Precision = Literal["auto", "float32", "bfloat16"]
AttentionName = Literal["auto", "blocked", "splash", "cudnn"]
