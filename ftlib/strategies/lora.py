"""LoRA"""
from ftlib.strategies.base import Strategy
class Lora(Strategy):
    r: int = 8
    targets: tuple[str, ...] = ()
