"""Packs and unpacks plain data (numbers, text, and for arguments containers of them) with the interpreter's own pickler.

The SDK's first strategy for data is ``dill`` in base 64. ``dill`` pickles in Python, since it can do more than plain data
needs; for plain data the interpreter's pickler gives the same bytes in a fraction of the time. That they are the same is
seen at start, on samples: if they are not, with some other release, the SDK's way is the only one.
"""

import binascii
import io
import pickle

#: The bytes that one line of base 64 holds.
_LINE = 57
_TYPES = frozenset((type(None), bool, int, float, str))
_TEXT_MAX = 4096
_HEADER = "00\n"
_SAMPLES = (None, True, False, 0, -1, 255, 256, 65536, 2**31, -(2**63), 2**100, 0.1, "", "text", "é\n", "x" * 300)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        raise pickle.UnpicklingError("not plain data")


class Plain:
    """What ``strategy`` (the SDK's for data) does, for plain data."""

    def __init__(self, strategy, protocol):
        self._protocol = protocol
        self._works = False
        try:
            self._works = all(self._agrees(strategy, sample) for sample in _SAMPLES)
        except Exception:
            # An SDK that does it in another way: `_works` stays false.
            self._works = False

    def _agrees(self, strategy, sample):
        packed = strategy.serialize(sample)
        together = (sample, [sample], {"name": sample})
        unpacked = self._unpack(strategy.serialize(together))
        return self._pack(sample) == packed and unpacked == together and type(unpacked[0]) is type(sample)

    def pack(self, value):
        """The packed form of ``value``, or ``None`` if this is not for plain data alone."""
        if self._works and type(value) in _TYPES and (type(value) is not str or len(value) <= _TEXT_MAX):
            return self._pack(value)
        return None

    def unpack(self, packed):
        """``(True, value)``, or ``(False, None)`` if it is not plain data."""
        if self._works and packed.startswith(_HEADER):
            try:
                return True, self._unpack(packed)
            except Exception:
                return False, None
        return False, None

    def _pack(self, value):
        pickled = pickle.dumps(value, self._protocol)
        if len(pickled) <= _LINE:
            return _HEADER + str(binascii.b2a_base64(pickled), "ascii")
        lines = [binascii.b2a_base64(pickled[start : start + _LINE]) for start in range(0, len(pickled), _LINE)]
        return _HEADER + str(b"".join(lines), "ascii")

    def _unpack(self, packed):
        return _Unpickler(io.BytesIO(binascii.a2b_base64(packed[len(_HEADER) :]))).load()
