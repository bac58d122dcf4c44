import hashlib, os

def primes(limit):
    sieve = bytearray([1]) * limit
    sieve[0:2] = b"\0\0"
    for n in range(2, int(limit ** 0.5) + 1):
        if sieve[n]:
            sieve[n * n::n] = bytes(len(range(n * n, limit, n)))
    return [n for n in range(limit) if sieve[n]]

state = 1
words = {}
for _ in range(60000):
    state = (state * 6364136223846793005 + 1442695040888963407) % 2 ** 64
    key = "%x" % (state >> 52)
    words[key] = words.get(key, 0) + 1
digest = hashlib.sha256()
for key in sorted(words):
    digest.update(("%s=%d\n" % (key, words[key])).encode())
for n in primes(50000):
    digest.update(str(n * n * n).encode())
digest.update(repr([i / 7 for i in range(3000)]).encode())
digest.update(str(3 ** 5000).encode())
reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, digest.digest())
    os._exit(0)
os.wait()
print(os.read(reader, 64).hex())
