"""Known results, hot loops first; the same in every Python."""
import hashlib
import re
import struct
import zlib

digest = hashlib.sha256()


def note(*values):
    digest.update(repr(values).encode())


def sieve(n):
    is_prime = bytearray([1]) * (n + 1)
    for i in range(2, int(n ** 0.5) + 1):
        if is_prime[i]:
            is_prime[i * i :: i] = bytes(len(range(i * i, n + 1, i)))
    return sum(is_prime[2:])


def mandel(n):
    inside = 0
    for y in range(n):
        for x in range(n):
            c = complex(2.0 * x / n - 1.5, 2.0 * y / n - 1.0)
            z = 0j
            for _ in range(30):
                z = z * z + c
                if z.real * z.real + z.imag * z.imag > 4:
                    break
            else:
                inside += 1
    return inside


class Node:
    def __init__(self, depth):
        self.children = [Node(depth - 1), Node(depth - 1)] if depth else []

    def count(self):
        return 1 + sum(c.count() for c in self.children)


def main():
    state = 99
    numbers = []
    for _ in range(200000):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        numbers.append(state)
    note(sieve(300000), mandel(110), Node(13).count())
    note(sum(sorted(numbers)[::101]))
    counts = {}
    for n in numbers:
        counts[n % 977] = counts.get(n % 977, 0) + 1
    note(sorted(counts.items()))
    text = " ".join("%x" % n for n in numbers[:30000])
    note(len(re.findall(r"\b[a-f]+\d+", text)), re.sub(r"\d+", lambda m: str(len(m.group())), text)[:400])
    packed = struct.pack("<%dI" % len(numbers), *numbers)
    note(zlib.crc32(packed), zlib.decompress(zlib.compress(packed, 6)) == packed)
    note(pow(3, 20000, 10 ** 60), 7 ** 3000 % (10 ** 50))
    made = 0
    for i in range(400):
        scope = {}
        exec("def f(x):\n s = %d\n for j in range(60): s = (s * x + j) %% 65521\n return s" % i, scope)
        made = (made + scope["f"](i)) % 65521
    note(made)
    caught = 0
    for i in range(100000):
        try:
            if i % 3 == 0:
                raise ValueError(i)
            caught += (None if i % 7 == 1 else "x").__len__()
        except ValueError:
            caught += 2
        except AttributeError:
            caught += 3
    note(caught)
    print(digest.hexdigest())


main()
